"""The table of components that a stack can run; the table is the documentation."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.stack.component import Component
from jobs.stack.flink import FLINK
from jobs.stack.kafka import KAFKA

COMPONENTS: Mapping[str, Component] = {component.name: component for component in (KAFKA, FLINK)}

"""The table of components that a stack can run; the table is the documentation."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.stack.component import Component
from jobs.stack.connect import CONNECT
from jobs.stack.flink import FLINK
from jobs.stack.kafka import KAFKA
from jobs.stack.postgres import POSTGRES
from jobs.stack.s3 import S3
from jobs.stack.schema_registry import REGISTRY

COMPONENTS: Mapping[str, Component] = {
    component.name: component for component in (KAFKA, FLINK, S3, REGISTRY, POSTGRES, CONNECT)
}

"""Counters and gauges of the Python functions, as Flink's dashboard and the Prometheus endpoint show them."""

from __future__ import annotations

import re
from typing import Any, Protocol


class Metrics(Protocol):
    """What a function reports: counts that only grow, and values that come and go. Groups are (label, value) pairs."""

    def count(self, name: str, amount: int, **labels: str) -> None:
        """Add to a counter."""

    def set(self, name: str, value: int, **labels: str) -> None:
        """Set a gauge."""


class NoMetrics:
    """Metrics for a function that runs outside Flink."""

    def count(self, name: str, amount: int, **labels: str) -> None:
        """Forget the count."""

    def set(self, name: str, value: int, **labels: str) -> None:
        """Forget the value."""


class FlinkMetrics:
    """Metrics in Flink's group `tidegate`; a (label, value) pair becomes a group of its own."""

    def __init__(self, context: Any) -> None:
        self._root = context.get_metric_group().add_group("tidegate")
        self._groups: dict[tuple[tuple[str, str], ...], Any] = {}
        self._counters: dict[tuple[Any, ...], Any] = {}
        self._values: dict[tuple[Any, ...], int] = {}

    def count(self, name: str, amount: int, **labels: str) -> None:
        """Add to a counter."""
        key = (name, *labels.items())
        if key not in self._counters:
            self._counters[key] = self._group(labels).counter(name)
        if amount:
            self._counters[key].inc(amount)

    def set(self, name: str, value: int, **labels: str) -> None:
        """Set a gauge."""
        key = (name, *labels.items())
        if key not in self._values:
            self._values[key] = value
            self._group(labels).gauge(name, lambda: self._values[key])
        self._values[key] = value

    def _group(self, labels: dict[str, str]) -> Any:
        key = tuple(labels.items())
        if key not in self._groups:
            group = self._root
            for label, value in key:
                group = group.add_group(label, re.sub(r"[^\w:-]", "_", value))
            self._groups[key] = group
        return self._groups[key]

"""Counters and gauges of the Python functions, as Flink's dashboard and the Prometheus endpoint show them."""

from __future__ import annotations

import re
from threading import Lock
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
    """Metrics in Flink's group `tidegate`; a (label, value) pair becomes a group of its own.

    Counts are gauges of a total: Flink reads gauges at the end of a bundle, while Beam's counters forget what another
    thread than the bundle's adds, as commits do. Names are first used on the bundle's thread, or while it waits.
    """

    def __init__(self, context: Any) -> None:
        self._root = context.get_metric_group().add_group("tidegate")
        self._groups: dict[tuple[tuple[str, str], ...], Any] = {}
        self._values: dict[tuple[Any, ...], int] = {}
        self._lock = Lock()

    def count(self, name: str, amount: int, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._put(name, self._values.get((name, *labels.items()), 0) + amount, labels)

    def set(self, name: str, value: int, **labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            self._put(name, value, labels)

    def _put(self, name: str, value: int, labels: dict[str, str]) -> None:
        key = (name, *labels.items())
        known = key in self._values
        self._values[key] = value
        if not known:
            self._group(labels).gauge(name, lambda: self._values[key])

    def _group(self, labels: dict[str, str]) -> Any:
        key = tuple(labels.items())
        if key not in self._groups:
            group = self._root
            for label, value in key:
                group = group.add_group(label, re.sub(r"[^\w:-]", "_", value))
            self._groups[key] = group
        return self._groups[key]

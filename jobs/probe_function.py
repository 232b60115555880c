"""Whether the schema registries answer, as a Flink function of its own: refine cannot report while it waits for one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import httpx
import pyarrow as pa
from pyflink.table.udf import FunctionContext, ScalarFunction

from jobs.exchange import column_result, exchange_arrow_columns
from jobs.metrics import FlinkMetrics, Metrics

if TYPE_CHECKING:
    import pandas as pd

EVERY_SECONDS = 5.0
TIMEOUT_SECONDS = 3.0


class ProbeRegistries(ScalarFunction):  # type: ignore[misc]
    """probe_registries(tick) -> NULL; sets the gauge `registry_unavailable`, one a registry."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = tuple(urls)

    def is_deterministic(self) -> bool:
        """Tell the planner that a second call is not the same as the first."""
        return False

    def open(self, function_context: FunctionContext) -> None:
        """Begin with a look."""
        exchange_arrow_columns()
        self._metrics: Metrics = FlinkMetrics(function_context)
        self._due = 0.0

    def eval(self, ticks: pa.Array) -> pd.Series[str]:
        """Look after each registry once in EVERY_SECONDS."""
        if time.monotonic() >= self._due:
            for url in self._urls:
                self._metrics.set(
                    "registry_unavailable", int(not answers(url)), registry=httpx.URL(url).netloc.decode()
                )
            self._due = time.monotonic() + EVERY_SECONDS
        return column_result(pa.nulls(len(ticks), pa.string()))


def answers(url: str) -> bool:
    """Say whether a registry can be asked; one that refuses our login answers."""
    try:
        return not httpx.get(f"{url}/subjects", timeout=TIMEOUT_SECONDS, trust_env=False).is_server_error
    except httpx.TransportError:
        return False

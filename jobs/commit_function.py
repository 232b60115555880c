"""commit as a Flink function: the sections of the windows that fired in, one report a stream out."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
from pyflink.table.udf import FunctionContext, ScalarFunction

from jobs.committer import Committer
from jobs.credentials import key_ring, lake_options
from jobs.exchange import column_result, exchange_arrow_columns
from jobs.kafka.client import KafkaClient
from jobs.metrics import FlinkMetrics
from jobs.settings import IngestSettings
from lakehouse.lake import Lake


class CommitSections(ScalarFunction):  # type: ignore[misc]
    """commit(stream, sections) -> report (JSON)."""

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = settings
        self._contracts = settings.load()

    def is_deterministic(self) -> bool:
        """Tell the planner that a second call is not the same as the first."""
        return False

    def open(self, function_context: FunctionContext) -> None:
        """Read the secrets and open the lake, on the worker."""
        exchange_arrow_columns()
        settings = self._settings
        self._committer = Committer(
            settings=settings,
            contracts={contract.stream: contract for contract in self._contracts},
            lake=Lake.open(settings.lake, lake_options()),
            keys=key_ring(settings.keys),
            kafka=KafkaClient.from_file(settings.kafka_config, settings.kafka),
            metrics=FlinkMetrics(function_context),
        )

    def eval(self, streams: pa.Array, sections: pa.Array) -> pd.Series[str]:
        """Commit all windows that fired, each stream once."""
        names = streams.to_pylist()
        texts: dict[str, list[str]] = {}
        for name, lines in zip(names, sections.to_pylist(), strict=True):
            texts.setdefault(name, []).extend(lines)
        reports = self._committer.commit(texts)
        return column_result(pa.array([reports[name] for name in names], pa.string()))

"""refine as a Flink function: a batch of raw records in, one line a stream out, in the first row."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
from pyflink.table.udf import FunctionContext, ScalarFunction

from contracts.columns import RECORDS
from jobs.credentials import key_ring, lake_options
from jobs.exchange import exchange_arrow_columns, first_row_result
from jobs.metrics import FlinkMetrics
from jobs.refinery import Refinery
from jobs.registry import Registries
from jobs.settings import IngestSettings
from lakehouse.lake import Lake
from lakehouse.parking import Parking
from lakehouse.segments import SectionRef


class RefineRecords(ScalarFunction):  # type: ignore[misc]
    """refine(topic, partition, offset, timestamp, key, value, old key, new key) -> lines, or NULL."""

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = settings
        self._contracts = settings.load()

    def is_deterministic(self) -> bool:
        """Tell the planner that a second call is not the same as the first."""
        return False

    def open(self, function_context: FunctionContext) -> None:
        """Read the secrets and open the lake, on the worker."""
        exchange_arrow_columns()
        metrics = FlinkMetrics(function_context)
        lake = Lake.open(self._settings.lake, lake_options())
        self._refinery = Refinery(
            contracts=self._contracts,
            lake=lake,
            parking=Parking(lake, self._settings.pipeline),
            registries=Registries(self._contracts, metrics),
            keys=key_ring(self._settings.keys),
            metrics=metrics,
        )

    def eval(self, *columns: pa.Array) -> pd.Series[str]:
        """Refine one batch."""
        typed = [column.cast(field.type) for column, field in zip(columns, RECORDS, strict=True)]
        records = pa.Table.from_arrays(typed, schema=RECORDS)
        lines = "\n".join(_line(ref) for ref in self._refinery.take(records))
        return first_row_result(lines or None, len(records))


def _line(ref: SectionRef) -> str:
    """Give one section as the statements in sql/ read it."""
    times = [r.max_event_time_ms for r in ref.ranges if r.max_event_time_ms is not None]
    # A section of rejects only has no event time; Flink refuses a null one, and the epoch moves no watermark.
    return f"{ref.stream}\t{max(times, default=0)}\t{ref.to_text()}"

"""refine as a Flink function: a batch of raw records in, one line a stream, or a lane of it, out, in the first row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from contracts.columns import RECORDS
from jobs.exchange import first_row_result
from jobs.ingest_function import IngestFunction
from jobs.metrics import Metrics
from lakehouse.lanes import channel

if TYPE_CHECKING:
    import pandas as pd

    from jobs.event_clock import EventClock
    from lakehouse.lake import Lake
    from lakehouse.segments import SectionRef
    from udfs.keys import KeyRing


class RefineRecords(IngestFunction):
    """refine(topic, partition, offset, timestamp, key, value, old key, new key) -> lines, or NULL."""

    def prepare(self, lake: Lake, keys: KeyRing, metrics: Metrics) -> None:
        """Make the refinery."""
        from jobs.event_clock import EventClock
        from jobs.refinery import Refinery
        from jobs.registry import Registries
        from lakehouse.parking import Parking

        self._refinery = Refinery(
            contracts=self.contracts,
            lake=lake,
            parking=Parking(lake, self.settings.pipeline),
            registries=Registries(self.contracts, metrics),
            keys=keys,
            metrics=metrics,
        )
        self._clocks = {c.stream: EventClock(c.event_time.idle_timeout_ms) for c in self.contracts}

    def eval(self, *columns: pa.Array) -> pd.Series[str]:
        """Refine one batch."""
        typed = [column.cast(field.type) for column, field in zip(columns, RECORDS, strict=True)]
        records = pa.Table.from_arrays(typed, schema=RECORDS)
        lines = "\n".join(line_of(ref, self._clocks[ref.stream]) for ref in self._refinery.take(records))
        return first_row_result(lines or None, len(records))


def line_of(ref: SectionRef, clock: EventClock) -> str:
    """Give one section as the statements in sql/ read it."""
    # A section of rejects only has no event time; Flink refuses a null one, and the epoch moves no watermark.
    return f"{channel(ref.stream, ref.lane)}\t{clock.read(ref.ranges)}\t{ref.to_text()}"

"""Commits a source's events bit by bit, as the job does: partitions at their own pace, changes sent again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lakehouse.commit import CommitReport, StreamTables
from lakehouse.lake import Lake
from lakehouse.state.table import StateTable
from tests.interop.wide import rejected
from tests.lakehouse.rows import NOW, no_gaps, section, tables, write
from tests.lakehouse.state.source import Row, Source
from tests.lakehouse.state.test_state_laws import ranges_of


class Feed:
    """The events of a source that are not committed yet, and the stream's tables."""

    def __init__(self, source: Source, lake: Lake) -> None:
        self.source, self.lake = source, lake
        self.stream: StreamTables = tables(lake, source.contract)
        self._left = source.by_partition()
        self.total = self.left
        self._last: dict[tuple[str, int], int] = {}

    @property
    def left(self) -> int:
        """Give how many events are to be committed."""
        return sum(map(len, self._left.values()))

    def commit(self, most: int, meanwhile: Callable[[], None] | None = None) -> CommitReport:
        """Commit at most so many events of each partition; see apply."""
        rows: list[Row] = []
        for partition, events in self._left.items():
            count = min(len(events), self.source.random.randint(most // 2, most))
            rows += events[:count]
            self._left[partition] = events[count:]
        return self.apply(rows, meanwhile)

    def apply(self, rows: list[Row], meanwhile: Callable[[], None] | None = None) -> CommitReport:
        """Commit events; meanwhile: done once the snapshot is read and before anything is written."""
        of = self.source.contract
        ranges = ranges_of(rows, self._last)
        self._last |= {(r.topic, r.partition): r.last for r in ranges}
        waiting = [meanwhile] if meanwhile else []
        if meanwhile:  # with a record that Kafka no longer holds in each partition, the lowest offset is asked for
            ranges = [replace(r, records=r.records - 1) for r in ranges]

        def earliest(_topic: str, _partition: int) -> int:
            while waiting:
                waiting.pop()()
            return 0

        kept = [row for row in rows if row["_kind"] is None]
        apart = [row for row in rows if row["_kind"] is not None]
        rejects = [rejected(row, of) for row in apart if row["_kind"] == "rejected"]
        refs = write(self.lake, section(kept, rejects, of=of, ranges=ranges, withheld=apart))
        return self.stream.commit(refs, gaps=no_gaps, earliest=earliest, now_ms=NOW)

    def restart(self) -> None:
        """Forget all that is in memory, as a job that starts again."""
        self.stream = tables(self.lake, self.source.contract)

    def compact(self) -> int:
        """Compact the stream's tables as the writer does between commits; give the number of files rewritten."""
        state = [table for table in self.stream.tables if isinstance(table, StateTable)]
        return sum(table.indexed.maintain(60).files for table in state)

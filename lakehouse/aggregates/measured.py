"""A table of measures by window and group: its rows found by their windows, and put together with what comes."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.model import Aggregate, Contract, WindowType
from lakehouse.aggregates.columns import BOUNDS
from lakehouse.aggregates.entries import AggregateEntries
from lakehouse.aggregates.measuring import Measuring
from lakehouse.aggregates.windows import US
from lakehouse.anchor import AnchorState
from lakehouse.groups import Ints
from lakehouse.kind import TableKind
from lakehouse.lake import Lake
from lakehouse.merge.index_snapshot import IndexSnapshots
from lakehouse.merge.indexed import CLOSED, FLAGS, Change, IndexedTable
from lakehouse.merge.merge_table import MergeTable
from lakehouse.progress import Partition, Writer
from lakehouse.shape import TableShape

NEVER = np.iinfo(np.int64).max


class MeasuredTable(MergeTable):
    """The table of one aggregate of a stream."""

    def __init__(  # noqa: PLR0917 (what a table of a stream is made of)
        self,
        lake: Lake,
        kind: TableKind,
        shape: TableShape,
        writer: Writer,
        contract: Contract,
        aggregate: Aggregate,
    ) -> None:
        super().__init__(lake, kind, shape, writer)
        self.measuring = Measuring(contract, aggregate)
        session = aggregate.window.type is WindowType.SESSION
        self._told = AggregateEntries(aggregate.group_by, session=session)
        snapshots = IndexSnapshots(lake, shape.name, self._told.key)
        self.indexed = IndexedTable(self, self._told, versions=session, snapshots=snapshots)
        self._next_end = -NEVER  # us: no window that is still open ends before

    def verify(self) -> list[pa.Field]:
        """Give the columns that the contract gained; raises SchemaRefused when the aggregate is another one."""
        self.shape.verify_definition(self.metadata["configuration"])
        return super().verify()

    def changed_by(self, parts: list[pa.Table], watermark_ms: int | None) -> Change:
        """Give what becomes of the table when parts are added, and the watermark has come to a time."""
        self.indexed.follow()
        measuring = self.measuring
        new = measuring.merged(parts)
        found = self._found(new) & ~FLAGS
        held = measuring.parts_of_stored(self.indexed.rows(found, measuring.stored_columns))
        merged = measuring.counted(measuring.merged([new, held]) if len(found) else new)
        passed = np.setdiff1d(self._passed(watermark_ms), found)
        left = measuring.parts_of_stored(self.indexed.rows(passed, measuring.stored_columns))
        rows = measuring.stored(pa.concat_tables([merged, left]), watermark_ms, _now_us())
        return Change(rows, np.concatenate([found, passed]))

    def replaced_by(self, parts: pa.Table, watermark_ms: int | None) -> Change:
        """Give what becomes of the table when parts stand in place of all its rows."""
        self.indexed.follow()
        rows = self.measuring.stored(self.measuring.counted(parts), watermark_ms, _now_us())
        return Change(rows, self.indexed.below(NEVER, NEVER).location & ~FLAGS)

    def put(
        self,
        change: Change,
        progress: Mapping[Partition, int],
        state: AnchorState | None,
        watermark_ms: int | None,
    ) -> None:
        """Commit a change; raises as MergeTable.commit does."""
        self.indexed.commit(change, progress, state, operation="MERGE")
        self._next_end = self._upcoming(change, watermark_ms)

    def _found(self, parts: pa.Table) -> Ints:
        """Give where the stored rows are that parts may go together with."""
        if not len(parts):
            return np.zeros(0, np.int64)
        keys = self._told.keys(parts)
        if not self.measuring.session:
            return self.indexed.last(keys).entries.location
        group, first = keys.groups()
        low, high = np.full(len(first), NEVER), np.full(len(first), -NEVER)
        np.minimum.at(low, group, parts[BOUNDS[0]].to_numpy())
        np.maximum.at(high, group, parts[BOUNDS[1]].to_numpy())
        hits = self.indexed.find(keys.take(first))
        touches = (hits.entries.major >= low[hits.asked]) & (hits.entries.minor <= high[hits.asked])
        return hits.entries.location[touches]

    def _passed(self, watermark_ms: int | None) -> Ints:
        """Give where the rows are whose window the watermark has passed since they were written."""
        if watermark_ms is None or watermark_ms * US < self._next_end:
            return np.zeros(0, np.int64)
        return self.indexed.unflagged(CLOSED, watermark_ms * US).location & ~FLAGS

    def _upcoming(self, change: Change, watermark_ms: int | None) -> int:
        """Give the next end of a window that is still open, after a change."""
        if watermark_ms is not None and watermark_ms * US < self._next_end:
            ends = change.append.filter(pc.invert(change.append["_complete"]))[BOUNDS[1]].cast(pa.int64())
            return min(self._next_end, pc.min(ends).as_py() or NEVER)
        open_rows = self.indexed.unflagged(CLOSED, NEVER)
        return int(open_rows.major.min()) if len(open_rows) else NEVER


def _now_us() -> int:
    return time.time_ns() // 1000

"""<stream>_<name>: measures of change events by window and group, and <stream>_late: what they do not count.

A batch's rows become parts, which are put together with the stored rows of the same windows and groups, and take their
place in the same commit as the progress. What is too late is decided when the batch first commits to <stream>_late or
to the table of aggregates: where a crash came between the two, the rows of <stream>_late say what was decided.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable

from contracts.model import Aggregate, Contract, WindowType
from lakehouse.aggregates.columns import BOUNDS
from lakehouse.aggregates.entries import AggregateEntries
from lakehouse.aggregates.lateness import COORDINATES, MISSED, Sorted, late_schema, sort_rows, without
from lakehouse.aggregates.measuring import Measuring
from lakehouse.aggregates.windows import US
from lakehouse.anchor import AnchorState
from lakehouse.appending import append
from lakehouse.groups import Ints
from lakehouse.kind import AppendKind, Batch, TableKind
from lakehouse.lake import Lake
from lakehouse.merge.index_snapshot import IndexSnapshots
from lakehouse.merge.indexed import CLOSED, FLAGS, Change, IndexedTable
from lakehouse.merge.merge_table import MergeTable
from lakehouse.progress import Partition, Writer
from lakehouse.shape import TableShape
from lakehouse.table import StreamTable

NEVER = np.iinfo(np.int64).max


def _has_missed(batch: Batch) -> bool:
    return len(batch.missed) > 0


def _append_missed(table: DeltaTable, batch: Batch, properties: CommitProperties) -> None:
    append(table, batch.missed, properties)


LATE = AppendKind("late", "_late", late_schema, concerns=_has_missed, apply=_append_missed)


class StreamAggregates:
    """The aggregates of a stream: sorts a batch's rows for each of them."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.tables: list[AggregateTable] = []
        self.late: LateTable | None = None

    def sort(self, batch: Batch, cuts: Mapping[Partition, int], lasts: Mapping[Partition, int]) -> tuple[Batch, int]:
        """Give a batch that begins at cuts with its rows sorted, and how many rows of <stream>_late it makes.

        Each aggregate gets what it lacks; some of the rows of <stream>_late may be there already.
        """
        if self.late is None:
            return batch, 0
        self.late.open()
        reached = self.late.progress(lasts)
        fresh = batch.beyond(reached, cuts)
        decided = self.late.missed_of(batch.within(reached).rows) if fresh is not batch else None
        found: dict[str, list[Sorted]] = {}
        for table in self.tables:
            table.open()
            own = table.progress(lasts)
            found[table.name] = [self._sort(table, fresh.beyond(own, cuts))]
            if decided is not None:
                before = self._sort(table, batch.within(reached).beyond(own, cuts))
                mine = decided.filter(pc.equal(decided["_aggregate"], table.measuring.aggregate.name))
                found[table.name].append(without(before, mine, table.measuring))
        missed = pa.concat_tables([one.missed for kinds in found.values() for one in kinds])
        return replace(batch, missed=missed, sorted=found), len(missed) + (0 if decided is None else len(decided))

    def _sort(self, table: AggregateTable, batch: Batch) -> Sorted:
        return sort_rows(table.measuring, batch.rows, self.contract.event_time.allowed_lateness_ms)


class LateTable(StreamTable):
    """What no aggregate counts, with the reason."""

    def __init__(self, lake: Lake, shape: TableShape, writer: Writer, stream: StreamAggregates) -> None:
        super().__init__(lake, LATE, shape, writer)
        self.stream = stream
        stream.late = self

    def missed_of(self, rows: pa.Table) -> pa.Table:
        """Give which windows the table says that rows missed: their coordinates, and MISSED. For a short range."""
        names = [*COORDINATES, *MISSED.names]
        if not len(rows):
            return self.columns_of(names)
        low, high = (pc.min_max(rows["_offset"])[end].as_py() for end in ("min", "max"))
        within = (pc.field("_offset") >= low) & (pc.field("_offset") <= high)
        with self._lake.explained(f"read table {self.name}"):
            found = self.delta.to_pyarrow_dataset().to_table(names, filter=within)
        return found.join(rows.select(COORDINATES), keys=list(COORDINATES), join_type="left semi")

    def columns_of(self, names: Sequence[str]) -> pa.Table:
        """Give no rows, with some of the table's columns."""
        columns = self.kind.columns(self.stream.contract)
        return pa.schema([columns.field(name) for name in names]).empty_table()


class AggregateTable(MergeTable):
    """One aggregate of a stream's change events."""

    def __init__(  # noqa: PLR0917 (what a table of a stream is made of)
        self,
        lake: Lake,
        kind: TableKind,
        shape: TableShape,
        writer: Writer,
        aggregate: Aggregate,
        stream: StreamAggregates,
    ) -> None:
        super().__init__(lake, kind, shape, writer)
        self.measuring = Measuring(stream.contract, aggregate)
        session = aggregate.window.type is WindowType.SESSION
        told = AggregateEntries(aggregate.group_by, session=session)
        snapshots = IndexSnapshots(lake, shape.name, told.key)
        self.indexed = IndexedTable(self, told, versions=session, snapshots=snapshots)
        self._told = told
        self._next_end = -NEVER  # us: no window that is still open ends before
        self._worked_out: tuple[Batch | None, int, Change | None] = (None, -1, None)
        stream.tables.append(self)

    def lacking(self, batch: Batch, cuts: Mapping[Partition, int], lasts: Mapping[Partition, int]) -> Batch | None:  # noqa: ARG002
        """Give the batch when it changes the table; None when it does not."""
        return None if self._change_of(batch).empty else batch

    def apply(self, batch: Batch, progress: Mapping[Partition, int], state: AnchorState) -> None:
        """Commit what the batch changes, with the new progress and state; raises as MergeTable.commit does."""
        self.indexed.commit(self._change_of(batch), progress, state, operation="MERGE")
        self._next_end = self._upcoming(batch.watermark_ms)

    def apply_progress(self, progress: Mapping[Partition, int], state: AnchorState) -> None:
        """Commit progress alone."""
        nothing = Change(self.columns.empty_table(), np.zeros(0, np.int64))
        self.indexed.commit(nothing, progress, state, operation="WRITE")

    def replace_all(self, parts: pa.Table, watermark_ms: int | None) -> None:
        """Commit parts in place of all rows, without progress or state."""
        self.indexed.follow()
        rows = self.measuring.stored(parts, watermark_ms, _now_us())
        everything = self.indexed.below(NEVER, NEVER).location & ~FLAGS
        self.indexed.commit(Change(rows, everything), {}, None, operation="MERGE")
        self._next_end = -NEVER

    def _change_of(self, batch: Batch) -> Change:
        known, version, change = self._worked_out
        if known is not batch or version != self.version or change is None:
            change = self._change(batch)
            self._worked_out = (batch, self.version, change)
        return change

    def _change(self, batch: Batch) -> Change:
        self.indexed.follow()
        parts = [part for one in batch.sorted.get(self.name, ()) for part in self._parts(one)]
        new = self.measuring.merged(parts)
        found = self._found(new)
        rows = self.indexed.rows(found, self.measuring.stored_columns)
        merged = self.measuring.merged([new, self.measuring.parts_of_stored(rows)]) if len(found) else new
        passed = np.setdiff1d(self._passed(batch.watermark_ms), found & ~FLAGS)
        left = self.measuring.parts_of_stored(self.indexed.rows(passed, self.measuring.stored_columns))
        appended = pa.concat_tables([merged, left])
        return Change(
            self.measuring.stored(appended, batch.watermark_ms, _now_us()), np.concatenate([found & ~FLAGS, passed])
        )

    def _parts(self, rows: Sorted) -> list[pa.Table]:
        plain = [self.measuring.parts(rows.plain)] if len(rows.plain) else []
        late = [self.measuring.parts_of_pairs(rows.late, rows.start, rows.end)] if len(rows.late) else []
        return [*plain, *late]

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

    def _upcoming(self, watermark_ms: int | None) -> int:
        """Give the next end of a window that is still open."""
        if watermark_ms is not None and watermark_ms * US < self._next_end and self._worked_out[2] is not None:
            new = self._worked_out[2].append
            ends = new.filter(pc.invert(new["_complete"]))["window_end"].cast(pa.int64())
            return min(self._next_end, pc.min(ends).as_py() or NEVER)
        open_rows = self.indexed.unflagged(CLOSED, NEVER)
        return int(open_rows.major.min()) if len(open_rows) else NEVER


def _now_us() -> int:
    return time.time_ns() // 1000

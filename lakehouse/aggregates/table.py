"""<stream>_<name>: measures of change events by window and group, and <stream>_late: what they do not count.

A batch's rows become parts, which are put together with the stored rows of the same windows and groups, and take their
place in the same commit as the progress. What is too late is decided when the batch first commits to <stream>_late or
to the table of aggregates: where a crash came between the two, the rows of <stream>_late say what was decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable

from contracts.model import Aggregate, Contract
from lakehouse.aggregates.lateness import COORDINATES, MISSED, Sorted, among, late_schema, sort_rows, without
from lakehouse.aggregates.measured import MeasuredTable
from lakehouse.anchor import AnchorState
from lakehouse.appending import append
from lakehouse.kind import AppendKind, Batch, TableKind
from lakehouse.lake import Lake
from lakehouse.merge.indexed import Change
from lakehouse.progress import Partition, Writer
from lakehouse.shape import TableShape
from lakehouse.table import StreamTable


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
            columns = self.kind.columns(self.stream.contract)
            return pa.schema([columns.field(name) for name in names]).empty_table()
        low, high = (pc.min_max(rows["_offset"])[end].as_py() for end in ("min", "max"))
        within = (pc.field("_offset") >= low) & (pc.field("_offset") <= high)
        with self._lake.explained(f"read table {self.name}"):
            found = self.delta.to_pyarrow_dataset().to_table(names, filter=within)
        return found.join(rows.select(COORDINATES), keys=list(COORDINATES), join_type="left semi")

    def fill(self, missed: pa.Table) -> None:
        """Append rows that the table does not hold yet, without progress or state."""
        if not len(missed):
            return
        self.open()
        keys = [*COORDINATES, "_aggregate"]
        known = self.missed_of(missed.select(COORDINATES))
        there = known.group_by(keys).aggregate([]) if len(known) else known.select(keys)
        new = missed.filter(pa.array(~among(missed, there, keys)))  # of one row and aggregate, all stand in one commit
        if len(new):
            with self._lake.explained(f"commit to table {self.name}"):
                append(self.delta, new, CommitProperties())


class AggregateTable(MeasuredTable):
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
        super().__init__(lake, kind, shape, writer, stream.contract, aggregate)
        self._worked_out: tuple[Batch | None, int, Change | None] = (None, -1, None)
        stream.tables.append(self)

    def lacking(self, batch: Batch, cuts: Mapping[Partition, int], lasts: Mapping[Partition, int]) -> Batch | None:  # noqa: ARG002
        """Give the batch when it changes the table; None when it does not."""
        return None if self._change_of(batch).empty else batch

    def apply(self, batch: Batch, progress: Mapping[Partition, int], state: AnchorState) -> None:
        """Commit what the batch changes, with the new progress and state; raises as MergeTable.commit does."""
        self.put(self._change_of(batch), progress, state, batch.watermark_ms)

    def apply_progress(self, progress: Mapping[Partition, int], state: AnchorState) -> None:
        """Commit progress alone."""
        nothing = Change(self.columns.empty_table(), np.zeros(0, np.int64))
        self.indexed.commit(nothing, progress, state, operation="WRITE")

    def parts_of(self, rows: Sorted) -> list[pa.Table]:
        """Give the parts of sorted rows."""
        plain = [self.measuring.parts(rows.plain)] if len(rows.plain) else []
        late = [self.measuring.parts_of_pairs(rows.late, rows.start, rows.end)] if len(rows.late) else []
        return [*plain, *late]

    def _change_of(self, batch: Batch) -> Change:
        known, version, change = self._worked_out
        if known is not batch or version != self.version or change is None:
            parts = [part for one in batch.sorted.get(self.name, ()) for part in self.parts_of(one)]
            change = self.changed_by(parts, batch.watermark_ms)
            self._worked_out = (batch, self.version, change)
        return change

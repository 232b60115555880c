"""The tables of a stream that know each key's last change: what a batch does to them is worked out once for all."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from contracts.model import Contract
from lakehouse.anchor import AnchorState
from lakehouse.kind import Batch, Floor, TableKind
from lakehouse.lake import Lake
from lakehouse.merge.index_snapshot import IndexSnapshots
from lakehouse.merge.merge_table import MergeTable
from lakehouse.progress import Partition
from lakehouse.shape import TableShape
from lakehouse.state.columns import key_names
from lakehouse.state.current import Current
from lakehouse.state.events import events_of
from lakehouse.state.history import History
from lakehouse.state.indexed import Change, IndexedTable
from lakehouse.state.snapshots import ending, vanished

ANCHOR = "current"


class StreamState:
    """Works out what a batch does to memory, history and current, on top of their snapshots.

    Applying a batch a second time changes nothing: positions decide. So a table that is ahead of the others (a commit
    of a later one failed) needs no trimmed batch.
    """

    def __init__(self, contract: Contract, epochs: Mapping[str, int]) -> None:
        self.contract = contract
        self.tables: dict[str, IndexedTable] = {}
        self._epochs = epochs
        self._worked_out: tuple[Batch | None, dict[str, Change]] = (None, {})

    def change_of(self, kind: str, batch: Batch) -> Change:
        """Give what a batch does to the table of a kind. The anchor must be open; the others are opened here."""
        if self._worked_out[0] is not batch:
            self._worked_out = (batch, self._work_out(batch))
        return self._worked_out[1][kind]

    def lost(self, topic: str, floor: Floor) -> tuple[int, int]:
        """Give how many rows of current a complete snapshot does not hold, and of how many rows."""
        table = self.tables[ANCHOR]
        table.follow()
        files = table.table.files()
        rows = sum(table.table.row_count(number) - file.dead for number, file in files.items())
        return len(vanished(table, topic, floor)), rows

    def _work_out(self, batch: Batch) -> dict[str, Change]:
        for kind, table in self.tables.items():
            if kind != ANCHOR:
                table.table.open()
            table.follow()
        events = events_of(self.contract, batch.rows, batch.withheld, self._epochs, batch.highest, batch.begun)
        for topic, floor in batch.swept.items():
            lost = vanished(self.tables[ANCHOR], topic, floor)
            events = ending(self.tables[ANCHOR], self.contract, lost, floor, events)
        current = Current(self.contract, self.tables["current"], self.tables["memory"])
        changes = current.outcome(events, time.time_ns() // 1000, batch.floors, batch.raised)
        if "history" in self.tables:
            history = History(self.contract, self.tables["history"], self.tables["memory"])
            changes["history"] = history.outcome(events, batch.floors, batch.raised)
        return changes


class StateTable(MergeTable):
    """One of the tables of a stream's state, merge-on-read."""

    def __init__(  # noqa: PLR0917 (as the other tables, and the state they share)
        self,
        lake: Lake,
        kind: TableKind,
        shape: TableShape,
        pipeline: str,
        epochs: Mapping[str, int],
        stream: StreamState,
    ) -> None:
        super().__init__(lake, kind, shape, pipeline, epochs)
        self._stream = stream
        keys = key_names(stream.contract)
        snapshots = IndexSnapshots(lake, shape.name, keys)
        self._indexed = IndexedTable(self, keys, versions=kind.name != ANCHOR, snapshots=snapshots)
        stream.tables[kind.name] = self._indexed

    @property
    def indexed(self) -> IndexedTable:
        """Give the table with its index."""
        return self._indexed

    @property
    def stream(self) -> StreamState:
        """Give what the tables of the stream's state share."""
        return self._stream

    def lacking(self, batch: Batch, cuts: Mapping[Partition, int], lasts: Mapping[Partition, int]) -> Batch | None:  # noqa: ARG002
        """Give the batch when it changes the table; None when it does not, or its progress says that it has."""
        if self._stream.change_of(self.kind.name, batch).empty:
            return None
        own = self.progress(lasts)
        return None if all(own.get(p, -1) >= last for p, last in lasts.items()) else batch

    def apply(self, batch: Batch, progress: Mapping[Partition, int], state: AnchorState) -> None:
        """Commit what the batch changes, with the new progress and state; raises as MergeTable.commit does."""
        change = self._stream.change_of(self.kind.name, batch)
        self._indexed.commit(change, progress, state, operation="MERGE")

    def fill(self, batch: Batch) -> None:
        """Commit what the batch changes, without progress or state."""
        change = self._stream.change_of(self.kind.name, batch)
        if not change.empty:
            self._indexed.commit(change, {}, None, operation="MERGE")

    def apply_progress(self, progress: Mapping[Partition, int], state: AnchorState) -> None:
        """Commit progress alone."""
        nothing = Change(self.columns.empty_table(), np.zeros(0, np.int64))
        self._indexed.commit(nothing, progress, state, operation="WRITE")

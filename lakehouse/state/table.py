"""The tables of a stream that know each key's last change: what a batch does to them is worked out once for all."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import pyarrow.compute as pc

from contracts.columns import own_schema
from contracts.model import Contract
from lakehouse.anchor import AnchorState, Floor, Floors
from lakehouse.kind import Batch, TableKind
from lakehouse.lake import Lake
from lakehouse.lanes import WHOLE
from lakehouse.merge.index_snapshot import IndexSnapshots
from lakehouse.merge.indexed import Change, IndexedTable
from lakehouse.merge.keys import Keys, keys_of
from lakehouse.merge.merge_table import MergeTable
from lakehouse.progress import Partition, Writer
from lakehouse.shape import TableShape
from lakehouse.state.columns import key_names, toastable
from lakehouse.state.current import Current
from lakehouse.state.entries import StateEntries
from lakehouse.state.events import Events, events_of, parsed_keys
from lakehouse.state.history import History
from lakehouse.state.vanished import ending, vanished

ANCHOR, MEMORY = "current", "memory"


class StreamState:
    """Works out what a batch does to memory, history and current, on top of their snapshots.

    Applying a batch a second time changes nothing: positions decide. So a table that is ahead of the others (a commit
    of a later one failed) needs no trimmed batch.
    """

    def __init__(self, contract: Contract, writer: Writer) -> None:
        self.contract = contract
        self.writer = writer
        self.lane = writer.lane
        self.tables: dict[str, IndexedTable] = {}
        self._heard: set[str] = set()  # keys, as JSON, to which key changes of other lanes lead
        self._worked_out: tuple[Batch | None, dict[str, Change]] = (None, {})

    def change_of(self, kind: str, batch: Batch) -> Change:
        """Give what a batch does to the table of a kind. The anchor must be open; the others are opened here."""
        if self._worked_out[0] is not batch:
            self._worked_out = (batch, self._work_out(batch))
        return self._worked_out[1][kind]

    def joined(self, floors: Floors) -> dict[str, Change]:
        """Give what becomes of this lane's rows by what other lanes recorded of key changes that lead to them.

        To be asked again until settled() is called: until then what was heard is not forgotten. The anchor must be
        open; the others are opened here.
        """
        self._follow()
        memory = self.tables[MEMORY]
        self._heard |= set(memory.heard)
        memory.heard.clear()
        keys = self._concerned(sorted(self._heard))
        if not len(keys):
            return {}
        changes = self._current.again(keys, time.time_ns() // 1000)
        if "history" in self.tables:
            changes["history"] = self._history.again(keys, floors)
        return {kind: self.tables[kind].new(change, but=["_recorded_at"]) for kind, change in changes.items()}

    def settled(self) -> None:
        """Forget what was heard: it is committed."""
        self._heard.clear()

    def _concerned(self, texts: list[str]) -> Keys:
        """Give those of keys written as JSON objects that are this lane's and have rows to be completed."""
        columns = parsed_keys(texts, self.contract, own_schema(self.contract))
        for name in columns.column_names if texts else ():
            columns = columns.filter(pc.is_valid(columns[name]))
        keys = keys_of([columns[name] for name in columns.column_names])
        keys = keys.take(np.flatnonzero(self.lane.owns(keys)))
        marks = np.zeros(len(keys), np.bool_)
        for table in self.tables.values():
            marks |= table.remembering(keys)
        keys = keys.take(np.flatnonzero(marks))
        return keys.take(keys.groups()[1])

    def lost(self, floors: Mapping[str, Floor], batch: Batch) -> tuple[dict[str, int], int]:
        """Give how many rows of current some complete snapshots (topic -> floor) do not hold, and of how many rows.

        batch: what is about to be committed; the rows that it brings are there.
        """
        table = self.tables[ANCHOR]
        table.follow()
        events = self._events(batch)
        found = {topic: len(vanished(table, topic, floor, events)) for topic, floor in floors.items()}
        return found, table.count()

    def _events(self, batch: Batch) -> Events:
        return events_of(
            self.contract, batch.rows, batch.withheld, self.writer.epochs, batch.highest, batch.begun, self.lane
        )

    def _work_out(self, batch: Batch) -> dict[str, Change]:
        self._follow()
        events = self._events(batch)
        for topic, floor in batch.swept.items():
            lost = vanished(self.tables[ANCHOR], topic, floor, events)
            events = ending(self.tables[ANCHOR], self.contract, lost, floor, events)
        now_us = time.time_ns() // 1000
        changes = self._current.outcome(events, now_us, batch.floors, batch.raised, afresh=batch.afresh)
        if "history" in self.tables:
            changes["history"] = self._history.outcome(events, batch.floors, batch.raised)
        return changes

    @property
    def _current(self) -> Current:
        return Current(self.contract, self.tables["current"], self.tables["memory"], self.lane)

    @property
    def _history(self) -> History:
        return History(self.contract, self.tables["history"], self.tables["memory"])

    def _follow(self) -> None:
        for kind, table in self.tables.items():
            if kind != ANCHOR:
                table.table.open()
            table.follow()


class StateTable(MergeTable):
    """One of the tables of a stream's state, merge-on-read."""

    def __init__(self, lake: Lake, kind: TableKind, shape: TableShape, stream: StreamState) -> None:
        keys = key_names(stream.contract)
        super().__init__(lake, kind, shape, stream.writer, keys=keys)
        self._stream = stream
        shared = kind.name == MEMORY and not stream.lane.alone
        snapshots = None if shared else IndexSnapshots(lake, shape.name, keys, stream.lane)
        self._indexed = IndexedTable(
            self,
            StateEntries(keys, versions="_is_current" in shape.columns.names),
            versions=kind.name != ANCHOR,
            snapshots=snapshots,
            lane=WHOLE if shared else stream.lane,  # all lanes ask the memory of all keys: a key change joins two lanes
            listens="_next_key" if shared and toastable(stream.contract) else None,
        )
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

    def complete(self, change: Change, state: AnchorState) -> None:
        """Commit a change without progress."""
        self._indexed.commit(change, {}, state, operation="MERGE")

    def fill(self, batch: Batch) -> None:
        """Commit what the batch changes, without progress or state."""
        change = self._stream.change_of(self.kind.name, batch)
        if not change.empty:
            self._indexed.commit(change, {}, None, operation="MERGE")

    def apply_progress(self, progress: Mapping[Partition, int], state: AnchorState) -> None:
        """Commit progress alone."""
        nothing = Change(self.columns.empty_table(), np.zeros(0, np.int64))
        self._indexed.commit(nothing, progress, state, operation="WRITE")

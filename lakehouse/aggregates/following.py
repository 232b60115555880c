"""<stream>_<name> over current: measures of the rows that current holds, by window and group.

The table follows current from version to version: its progress is the version of current that it counts, in the same
commit as its rows. After each commit of current, the rows that came are added and those that went are taken back. What
it did not see (a crash between the two commits, or somebody else's commit to current) is found in current's log; where
data changed, all of current is counted again. So it is right whatever happened to current.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from contracts.model import Contract
from lakehouse.aggregates.measured import MeasuredTable
from lakehouse.anchor import AnchorState
from lakehouse.groups import Ints
from lakehouse.kind import Batch
from lakehouse.lake import Lake
from lakehouse.progress import Partition
from lakehouse.state.table import ANCHOR, StateTable

FEW = 100  # commits whose log is read before current is counted again instead


@dataclass(frozen=True)
class Delta:
    """What one commit does to current's rows: those that come, then those that go, and the weight of each (1, -1)."""

    base: int  # current's version before it
    rows: pa.Table
    weights: Ints


class FollowingTable(MeasuredTable):
    """One aggregate of the rows of current."""

    _counted: int | None = None  # current's version that the rows stand for, as far as this process knows

    def columns_read(self, contract: Contract) -> list[str]:
        """Give the columns of current that are read."""
        deleted = ["_deleted"] if contract.state.soft_deletes else []
        return sorted({"_event_time", *self.measuring.reads, *deleted})

    def follow(self, current: StateTable, delta: Delta, state: AnchorState) -> None:
        """Count what current's last commit changed, where the table stands at the version before it."""
        if self._counted != delta.base:
            return  # catch_up finds out
        parts = self._parts(delta.rows, delta.weights)
        change = self.changed_by(parts, state.watermark_ms)
        if not change.empty:
            self.put(change, {self._place(current): current.version}, _told(state), state.watermark_ms)
        self._counted = current.version

    def catch_up(self, current: StateTable, state: AnchorState) -> None:
        """Bring the table to current's version; counts all of current again when its data changed unseen."""
        if self._counted == current.version:
            return
        place = self._place(current)
        self.open()
        since = self._counted if self._counted is not None else self.progress([place]).get(place)
        if since is None or not unchanged(self._lake, current.name, since, current.version):
            parts = self.measuring.merged(list(self._all_parts(current)))
            change = self.replaced_by(parts, state.watermark_ms)
            self.put(change, {place: current.version}, _told(state), state.watermark_ms)
        self._counted = current.version

    def see_to(self, current: StateTable) -> None:
        """Bring the table to current's newest version, for a process that does not fill current."""
        current.open()
        if (state := current.state()) is not None:
            self.catch_up(current, state)

    def _all_parts(self, current: StateTable) -> Iterable[pa.Table]:
        gathered = self.measuring.parts_schema.empty_table()
        for number in sorted(current.files()):
            rows = current.living(number, self.columns_read(current.stream.contract))
            parts = self._parts(rows, np.ones(len(rows), np.int64))
            gathered = self.measuring.merged([gathered, *parts])
        yield gathered

    def _parts(self, rows: pa.Table, weights: Ints) -> list[pa.Table]:
        """Give the parts of rows of current: those without an event time are in no window."""
        keep = rows["_event_time"].is_valid()
        if "_deleted" in rows.column_names:
            keep = pc.and_(keep, pc.invert(rows["_deleted"]))
        rows, weights = rows.filter(keep), weights[keep.to_numpy()]
        return [self.measuring.parts(rows, weights)] if len(rows) else []

    @staticmethod
    def _place(current: StateTable) -> Partition:
        return f"table:{current.table_id}", 0  # no topic is named so


def delta_of(current: StateTable, batch: Batch, followers: Iterable[FollowingTable]) -> Delta:
    """Give what a batch will do to the rows of current, which must be open."""
    contract = current.stream.contract
    columns = sorted({name for follower in followers for name in follower.columns_read(contract)})
    change = current.stream.change_of(ANCHOR, batch)
    gone = current.indexed.rows(change.remove, columns)
    come = change.append.select(columns)
    weights = np.concatenate([np.ones(len(come), np.int64), np.full(len(gone), -1, np.int64)])
    return Delta(current.version, pa.concat_tables([come, gone.select(columns)]), weights)


def unchanged(lake: Lake, table: str, since: int, version: int) -> bool:
    """Say whether a table's log shows that no row changed between two versions."""
    if not 0 <= version - since <= FEW:
        return version == since
    for number in range(since + 1, version + 1):
        commit = lake.get(f"{table}/_delta_log/{number:020}.json")
        if commit is None or any(map(_changes_data, commit.splitlines())):
            return False
    return True


def _changes_data(line: bytes) -> bool:
    if not line.startswith((b'{"add"', b'{"remove"')):
        return False
    [action] = orjson.loads(line).values()
    return bool(action.get("dataChange", True))


def _told(state: AnchorState) -> AnchorState:
    """Give the state that a commit of a following table carries: who wrote it."""
    own = AnchorState(state.pipeline, state.stream, version=state.version, commit=uuid.uuid4().hex)
    return replace(own, last_counts={})

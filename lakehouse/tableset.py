"""The set of a stream's tables: created together, added to with care, never silently created again."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from contracts.model import Contract
from lakehouse.aggregates.build import build as count
from lakehouse.aggregates.table import LATE, AggregateTable, LateTable
from lakehouse.anchor import AnchorState, Floors
from lakehouse.errors import PartialTable, TableVanished, TableWentBack
from lakehouse.kind import within
from lakehouse.kinds import MEMORY
from lakehouse.lake import Lake
from lakehouse.lanes import WHOLE, Lane
from lakehouse.state.build import batches_of, build, unbuildable
from lakehouse.state.table import StateTable
from lakehouse.tables import KeptTable


@dataclass(frozen=True)
class TableSet:
    """The tables that a contract keeps, in commit order, and those of other kinds that it may have kept before."""

    lake: Lake
    contract: Contract
    epochs: Mapping[str, int]
    kept: Sequence[KeptTable]
    former: Sequence[KeptTable]
    lane: Lane = WHOLE

    def prepare(self, *, accept_partial: bool) -> None:
        """Open or create the kept tables, and bring them to the contract's shape.

        Raises TableVanished, TableWentBack or PartialTable when one is missing, or older, while another has progress.
        """
        former, there = self._opened()
        states = {name: state for name, table in {**former, **there}.items() if (state := table.state()) is not None}
        missing = [table for table in self.kept if table.kind.name not in there]
        if not self.lane.alone:
            self._verify_complete(missing, states)
        alone = self.lane.alone and not accept_partial
        left = self._left_behind(there, states) if alone else set()
        whole = {name: state for name, state in states.items() if name not in left}
        building = self._building(whole) if alone else []
        counting = self._counting(whole) if alone else []
        joining = [*building, *counting, *(table for table in self.kept if counting and isinstance(table, LateTable))]
        for table in missing:
            self._verify_absence(table, states, accept_partial or table in joining)
        for name in sorted(left):  # a stream whose anchor lags goes on where that stands
            if there[name] not in joining and there[name] is not self.kept[-1]:
                raise PartialTable(
                    f"stream {self.contract.stream}: the table {there[name].name} was not kept for a while, and lacks "
                    f"what the stream committed meanwhile{self._why_not_built(there[name])}. Accept a partial table "
                    "explicitly, or move the table away as well as the stream's others to build them all."
                )
        for state in states.values():
            _verify_not_older(there, state)
        for table in missing:
            table.create()
        for table in self.kept:
            table.evolve()
        floors = self._build(building)
        self._count(counting, states)
        new = {table.kind.name for table in (*missing, *building, *counting)}
        for kind, state in states.items():
            if state.partitions:
                leader = there.get(kind) or former[kind]
                held = replace(state, floors={**state.floors, **floors})
                self._level(leader, held, {*state.tables, *new})

    def _opened(self) -> tuple[dict[str, KeptTable], dict[str, KeptTable]]:
        """Open the tables that are there, by kind: former ones, and kept ones in commit order.

        Another lane, or another copy of the job, may make tables and commit meanwhile. So the anchor is opened first:
        what its state says of other tables, these hold by the time they are opened.
        """
        former = {table.kind.name: table for table in self.former if table.open()}
        there: set[str] = set()
        while (found := {table.kind.name for table in reversed(self.kept) if table.open()}) != there:
            there = found
        return former, {table.kind.name: table for table in self.kept if table.kind.name in there}

    def _verify_complete(self, missing: Sequence[KeptTable], states: Mapping[str, AnchorState]) -> None:
        """Raise PartialTable when a table would join a stream that several lanes fill: none of them sees it whole."""
        if missing and states:
            raise PartialTable(
                f"stream {self.contract.stream}: the table {missing[0].name} would be new, but the stream already has "
                f"progress in {', '.join(sorted(states))}, and {self.lane.of} lanes. Set `lanes: 1`, start once, so "
                "that the table is built, then set the lanes again."
            )

    def _leader(self, states: Mapping[str, AnchorState]) -> tuple[KeptTable, AnchorState] | None:
        """Give the table that is, or was last, the stream's anchor, and its state."""
        tables = {table.kind.name: table for table in (*self.former, *self.kept)}
        anchors = [(tables[name], state) for name, state in states.items() if state.partitions]
        return max(anchors, key=lambda one: sum(one[0].progress(one[1].partitions).values()), default=None)

    def _left_behind(self, there: Mapping[str, KeptTable], states: Mapping[str, AnchorState]) -> set[str]:
        """Give the kinds of tables that the contract did not keep for a while: they lack what came meanwhile."""
        leader = self._leader(states)
        if leader is None:
            return set()
        table, state = leader
        reached = table.progress(state.partitions)
        known = {*state.tables, table.kind.name, LATE.name}  # what is late is told with the aggregates that say so
        own = [(name, one.progress(reached)) for name, one in there.items() if name in states and name not in known]
        return {name for name, held in own if any(held.get(p, -1) < offset for p, offset in reached.items())}

    def _building(self, states: Mapping[str, AnchorState]) -> list[StateTable]:
        """Give the tables of the stream's state when some of them were never filled and the changes can fill them."""
        state = [table for table in self.kept if isinstance(table, StateTable)]
        filled = "changes" in states and any(known.partitions for known in states.values())
        whole = filled and unbuildable(self.contract) is None
        lacks = any(table.kind.name not in states for table in state if table.kind is not MEMORY)
        return state if whole and lacks else []

    def _counting(self, states: Mapping[str, AnchorState]) -> list[AggregateTable]:
        """Give the tables of aggregates that were never filled where the stream's changes can fill them."""
        filled = "changes" in states and any(known.partitions for known in states.values())
        aggregates = [table for table in self.kept if isinstance(table, AggregateTable)]
        return [table for table in aggregates if filled and table.kind.name not in states]

    def _count(self, tables: Sequence[AggregateTable], states: Mapping[str, AnchorState]) -> None:
        late = next((table for table in self.kept if isinstance(table, LateTable)), None)
        changes = next((table.name for table in self.kept if table.kind.name == "changes"), None)
        if not tables or late is None or changes is None:
            return
        leader = self._leader(states)
        assert leader is not None, "what is counted joins a stream that has begun"
        anchor, state = leader
        reached = anchor.progress(state.partitions)  # the changes may be ahead
        rows = (within(batch, reached) for batch in batches_of(self.lake, changes))
        count(self.contract, rows, tables, late, reached, state)

    def _build(self, tables: Sequence[StateTable]) -> Floors:
        if not tables:
            return {}
        names = {table.kind.name: table.name for table in self.kept}
        return build(self.lake, self.contract, names["changes"], names["quarantine"], tables, self.epochs)

    def _level(self, leader: KeptTable, state: AnchorState, followers: set[str]) -> None:
        """Bring the tables that were committed before their anchor to its progress, by commits without rows.

        While the set stays as it is, a table with nothing to write lags behind its anchor; a later anchor must not.
        """
        reached = leader.progress(state.partitions)
        for table in self.kept:
            own = table.progress(reached)
            ahead = {p: offset for p, offset in reached.items() if offset > own.get(p, -1)}
            if table.kind.name in followers and ahead and leader is not self.kept[-1]:
                table.apply_progress(ahead, replace(state, commit=uuid.uuid4().hex, tables={}))

    def _verify_absence(self, table: KeptTable, states: Mapping[str, AnchorState], accept_partial: bool) -> None:
        """Raise when a table that is not there ought to be, or would lack what the others hold."""
        for kind, state in states.items():
            if table.kind.name in state.tables:
                raise TableVanished(
                    f"table {table.name} is gone, but the stream's table of kind {kind} knows it at version "
                    f"{state.tables[table.kind.name][1]}. Bring it back, or move the other tables away as well."
                )
        if states and not accept_partial:
            raise PartialTable(
                f"stream {self.contract.stream}: the table {table.name} would be new, but the stream already has "
                f"progress in {', '.join(sorted(states))}: the new table would lack the records before"
                f"{self._why_not_built(table)}. Accept a partial table explicitly, or move the stream's tables away to "
                "build them all."
            )

    def _why_not_built(self, table: KeptTable) -> str:
        if isinstance(table, AggregateTable | LateTable):
            return ", and the stream keeps no changes to count it from"
        if not isinstance(table, StateTable):
            return ""
        return f", and {unbuildable(self.contract) or 'the stream keeps no changes to build it from'}"


def _verify_not_older(there: Mapping[str, KeptTable], state: AnchorState) -> None:
    """Raise when a table is older than, or another than, the one the anchor's last commit saw."""
    for kind, (table_id, version) in state.tables.items():
        table = there.get(kind)
        if table is not None and (table.table_id != table_id or table.version < version):
            raise TableWentBack(
                f"table {table.name} is at version {table.version} (id {table.table_id}), the stream knows it at "
                f"version {version} (id {table_id}): an older or another table stands in its place. Bring the right "
                "one back, or move the stream's tables away to build the stream again."
            )

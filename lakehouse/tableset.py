"""The set of a stream's tables: created together, added to with care, never silently created again."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lakehouse.anchor import AnchorState
from lakehouse.errors import PartialTable, TableVanished, TableWentBack
from lakehouse.tables import KeptTable


@dataclass(frozen=True)
class TableSet:
    """The tables that a contract keeps, in commit order, and those of other kinds that it may have kept before."""

    stream: str
    kept: Sequence[KeptTable]
    former: Sequence[KeptTable]

    def prepare(self, *, accept_partial: bool) -> None:
        """Open or create the kept tables, and bring them to the contract's shape.

        Raises TableVanished, TableWentBack or PartialTable when one is missing, or older, while another has progress.
        """
        there = {table.kind.name: table for table in self.kept if table.open()}
        former = {table.kind.name: table for table in self.former if table.open()}
        states = {name: state for name, table in {**former, **there}.items() if (state := table.state()) is not None}
        missing = [table for table in self.kept if table.kind.name not in there]
        for table in missing:
            self._verify_absence(table, states, accept_partial)
        for state in states.values():
            _verify_not_older(there, state)
        for table in missing:
            table.create()
        for table in self.kept:
            table.evolve()
        for kind, state in states.items():
            if state.partitions:
                leader = there.get(kind) or former[kind]
                self._level(leader, state, {*state.tables, *(table.kind.name for table in missing)})

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
                f"stream {self.stream}: the table {table.name} would be new, but the stream already has progress in "
                f"{', '.join(sorted(states))}: the new table would lack the records before. Accept a partial table "
                "explicitly, or move the stream's tables away to build them all."
            )


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

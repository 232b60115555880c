"""The set of a stream's tables: created together, added to with care, never silently created again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lakehouse.anchor import AnchorState
from lakehouse.errors import PartialTable, TableVanished, TableWentBack
from lakehouse.lake import Lake
from lakehouse.table import StreamTable


def prepare_tables(lake: Lake, stream: str, pipeline: str, tables: Sequence[StreamTable], accept_partial: bool) -> None:
    """Open or create the stream's tables, and bring them to the contract's shape.

    Raises TableVanished, TableWentBack or PartialTable when one is missing, or older, while another holds progress.
    """
    there = {table.kind.name: table for table in tables if table.open()}
    states = {name: state for name, table in there.items() if (state := table.state()) is not None}
    anchor = states.get(tables[-1].kind.name)
    for table in tables:
        if table.kind.name not in there:
            _verify_absence(stream, table, states, accept_partial)
            table.create()
        table.evolve()
    if anchor is not None:
        _verify_not_older(there, anchor)


def _verify_absence(stream: str, table: StreamTable, states: Mapping[str, AnchorState], accept_partial: bool) -> None:
    """Raise when a table that is not there ought to be, or would lack what the others hold."""
    for kind, state in states.items():
        if table.kind.name in state.tables:
            raise TableVanished(
                f"table {table.name} is gone, but the stream's table of kind {kind} knows it at version "
                f"{state.tables[table.kind.name][1]}. Bring it back, or move the stream's other tables away as well."
            )
    if states and not accept_partial:
        raise PartialTable(
            f"stream {stream}: the table {table.name} would be new, but the stream already has progress in "
            f"{', '.join(sorted(states))}: the new table would lack the records before. Accept a partial table "
            "explicitly, or move the stream's tables away to build them all."
        )


def _verify_not_older(there: Mapping[str, StreamTable], anchor: AnchorState) -> None:
    for kind, (table_id, version) in anchor.tables.items():
        table = there.get(kind)
        if table is not None and (table.table_id != table_id or table.version < version):
            raise TableWentBack(
                f"table {table.name} is at version {table.version} (id {table.table_id}), the stream knows it at "
                f"version {version} (id {table_id}): an older or another table stands in its place. Bring the right "
                "one back, or move the stream's tables away to build the stream again."
            )

"""The kinds of table a stream can keep, in the order they are committed. The last one kept is the stream's anchor."""

from __future__ import annotations

from lakehouse import changes, quarantine
from lakehouse.kind import TableKind
from lakehouse.state.columns import current_schema, history_schema, memory_schema

# The memory of deletes goes before the tables that ask it, so that no crash makes them forget a delete.
MEMORY = TableKind("memory", "", memory_schema, folder="_tidegate/memory/")
HISTORY = TableKind("history", "_history", history_schema)
CURRENT = TableKind("current", "", current_schema)
STATE = (MEMORY, HISTORY, CURRENT)
KINDS: tuple[TableKind, ...] = (quarantine.KIND, changes.KIND, *STATE)


def other_kinds(tables: tuple[str, ...]) -> tuple[TableKind, ...]:
    """Give the kinds that a contract does not keep (it may have kept them before)."""
    kept = {kind.name for kind in kinds_of(tables)}
    return tuple(kind for kind in KINDS if kind.name not in kept)


def kinds_of(tables: tuple[str, ...]) -> tuple[TableKind, ...]:
    """Give the kinds that a contract keeps, in the order they are committed; raises ValueError for an unknown one."""
    unknown = set(tables) - {kind.name for kind in KINDS}
    if unknown or not tables:
        known = ", ".join(kind.name for kind in KINDS)
        raise ValueError(f"unknown table kinds {sorted(unknown)}; known are {known}, and a stream keeps at least one")
    kept = {*tables, MEMORY.name} if CURRENT.name in tables else set(tables)
    return tuple(kind for kind in KINDS if kind.name in kept)

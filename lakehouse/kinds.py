"""The kinds of table a stream can keep, in the order they are committed. The last one kept is the stream's anchor."""

from __future__ import annotations

from lakehouse import changes, quarantine
from lakehouse.kind import TableKind

KINDS: tuple[TableKind, ...] = (quarantine.KIND, changes.KIND)


def other_kinds(tables: tuple[str, ...]) -> tuple[TableKind, ...]:
    """Give the kinds that a contract does not keep (it may have kept them before)."""
    return tuple(kind for kind in KINDS if kind.name not in tables)


def kinds_of(tables: tuple[str, ...]) -> tuple[TableKind, ...]:
    """Give the kinds that a contract keeps, in the order they are committed; raises ValueError for an unknown one."""
    unknown = set(tables) - {kind.name for kind in KINDS}
    if unknown or not tables:
        known = ", ".join(kind.name for kind in KINDS)
        raise ValueError(f"unknown table kinds {sorted(unknown)}; known are {known}, and a stream keeps at least one")
    return tuple(kind for kind in KINDS if kind.name in tables)

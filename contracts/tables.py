"""The kinds of tables a stream can keep, in the order in which they are committed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TableKind:
    """One kind of table: how its name is made from the stream's, and whether it needs a key."""

    name: str
    suffix: str
    needs_key: bool
    holds: str  # one sentence for the documents


TABLE_KINDS: tuple[TableKind, ...] = (
    TableKind("quarantine", "_quarantine", False, "records refused, with stage, rules, reason and Kafka coordinates"),
    TableKind("changes", "_changes", False, "every accepted change, append-only"),
    TableKind("history", "_history", True, "every version of each row, from when to when it was valid"),
    TableKind("current", "", True, "the rows as the source has them, one for each key"),
)

# Names that a stream's tables have or may get later: another stream must not be called so.
RESERVED_SUFFIXES = ("", "_changes", "_history", "_quarantine", "_late")


def kinds_by_name() -> dict[str, TableKind]:
    """Give the known table kinds by name, in commit order."""
    return {kind.name: kind for kind in TABLE_KINDS}


def table_name(stream: str, kind: str) -> str:
    """Give the name of a stream's table of one kind."""
    return stream + kinds_by_name()[kind].suffix

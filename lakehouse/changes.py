"""<stream>_changes: every change, append-only."""

from __future__ import annotations

from deltalake import CommitProperties, DeltaTable

from contracts.columns import changes_schema
from lakehouse.appending import append
from lakehouse.kind import Batch, TableKind


def append_changes(table: DeltaTable, batch: Batch, properties: CommitProperties, anchor: bool) -> bool:
    """Append the accepted rows; without any, commit only as the anchor."""
    if not len(batch.rows) and not anchor:
        return False
    append(table, batch.rows, properties)
    return True


KIND = TableKind("changes", "_changes", changes_schema, append_changes)

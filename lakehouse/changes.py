"""<stream>_changes: every change, append-only."""

from __future__ import annotations

from deltalake import CommitProperties, DeltaTable

from contracts.columns import changes_schema
from lakehouse.appending import append
from lakehouse.kind import AppendKind, Batch


def has_changes(batch: Batch) -> bool:
    """Whether the batch holds accepted rows."""
    return len(batch.rows) > 0


def append_changes(table: DeltaTable, batch: Batch, properties: CommitProperties) -> None:
    """Append the accepted rows."""
    append(table, batch.rows, properties)


KIND = AppendKind("changes", "_changes", changes_schema, concerns=has_changes, apply=append_changes)

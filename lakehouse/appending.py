"""Append rows to a Delta table through a given snapshot, in one commit."""

from __future__ import annotations

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, WriterProperties, write_deltalake

WRITER = WriterProperties(compression="SNAPPY")


def append(table: DeltaTable, rows: pa.Table, properties: CommitProperties) -> None:
    """Append rows (columns by name, all of them) in one commit on top of the table's snapshot.

    No rows still make a commit. Raises CommitFailedError when somebody else committed since the snapshot was read.
    """
    write_deltalake(table, rows, mode="append", commit_properties=properties, writer_properties=WRITER)

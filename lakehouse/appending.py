"""Append rows to a Delta table through a given snapshot, in one commit."""

from __future__ import annotations

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, WriterProperties, write_deltalake

WRITER = WriterProperties(compression="SNAPPY")


def append(table: DeltaTable, rows: pa.Table, properties: CommitProperties) -> None:
    """Append rows (columns by name) in one commit on top of the table's snapshot.

    Columns that the table gained meanwhile are null. No rows still make a commit.
    Raises CommitFailedError when somebody else committed since the snapshot was read.
    """
    columns = pa.schema(table.schema().to_arrow())
    for name in columns.names if len(columns) > rows.num_columns else ():
        if name not in rows.column_names:
            rows = rows.append_column(columns.field(name), pa.nulls(len(rows), columns.field(name).type))
    write_deltalake(table, rows, mode="append", commit_properties=properties, writer_properties=WRITER)

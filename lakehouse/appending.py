"""Append rows to a Delta table through a given snapshot, in one commit."""

from __future__ import annotations

import re
from functools import lru_cache

import pyarrow as pa
from deltalake import ColumnProperties, CommitProperties, DeltaTable, WriterProperties, write_deltalake

# Columns of ours that hold few different values in one batch. All other columns are written without a dictionary:
# building one of nearly unique values took two thirds of a commit's time (2.5 against 0.9 us a row).
REPETITIVE = frozenset(
    {"_op", "_topic", "_snapshot", "_partition", "_schema_id", "_ingested_at", "_stage", "_payload_form",
     "_payload_key_id", "_late", "_lateness_ms", "_resent", "_epoch"}
)  # fmt: skip
DICTIONARY = ColumnProperties(dictionary_enabled=True)
PLAIN = ColumnProperties(dictionary_enabled=False)
DELTA = ColumnProperties(dictionary_enabled=False, encoding="DELTA_BINARY_PACKED")
_PLAIN_NAME = re.compile(r"\w+", re.ASCII)


def append(table: DeltaTable, rows: pa.Table, properties: CommitProperties) -> None:
    """Append rows (columns by name) in one commit on top of the table's snapshot.

    Columns that the table gained meanwhile are null. No rows still make a commit.
    Raises CommitFailedError when somebody else committed since the snapshot was read.
    """
    columns = pa.schema(table.schema().to_arrow())
    for name in columns.names if len(columns) > rows.num_columns else ():
        if name not in rows.column_names:
            rows = rows.append_column(columns.field(name), pa.nulls(len(rows), columns.field(name).type))
    write_deltalake(
        table, rows, mode="append", commit_properties=properties, writer_properties=writer_properties(columns)
    )


@lru_cache(maxsize=256)
def writer_properties(columns: pa.Schema) -> WriterProperties:
    """Give how the columns are written: encodings by what they hold, zstd."""
    own = {f.name: _encoding(f) for f in columns if _PLAIN_NAME.fullmatch(f.name)}
    return WriterProperties(
        compression="ZSTD",
        compression_level=1,
        default_column_properties=PLAIN,
        column_properties={name: encoding for name, encoding in own.items() if encoding is not PLAIN},
    )


def _encoding(field: pa.Field) -> ColumnProperties:
    if field.name in REPETITIVE or pa.types.is_boolean(field.type):
        return DICTIONARY
    if pa.types.is_integer(field.type) or pa.types.is_timestamp(field.type):
        return DELTA
    return PLAIN

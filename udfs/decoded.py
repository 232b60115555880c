"""What a decoder gives: pieces of a batch read with one schema each, and the records it could not read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from udfs.slices import Ints
from udfs.wire import Hints
from udfs.writer_schemas import Columns

# Where a change stands in a database whose log is files: MySQL and MariaDB.
FILE_PLACE = [("file", pa.string()), ("pos", pa.int64()), ("row", pa.int64())]

# The children of `source` that normalise needs, with the types they are read as.
SOURCE = pa.struct(
    [
        ("sequence", pa.string()),
        ("lsn", pa.int64()),
        ("txId", pa.int64()),
        ("snapshot", pa.string()),
        ("ts_us", pa.int64()),
        ("ts_ms", pa.int64()),
        *FILE_PLACE,
    ]
)


@dataclass(frozen=True)
class Refusal:
    """One record that cannot be read, and why; the reason holds no value of it."""

    row: int  # index in the raw batch
    stage: str
    rule: str
    reason: str


def wrong_type(row: int, column: str) -> Refusal:
    """Refuse a record for a column's value."""
    reason = f"a value in {column} is not of the type the contract declares"
    return Refusal(row, "normalise", f"wrong_type:{column}", reason)


def unknown_field(row: int) -> Refusal:
    """Refuse a record for a field that the contract does not name."""
    return Refusal(row, "normalise", "unknown_field", "the record has fields that the contract does not name")


@dataclass(frozen=True)
class Piece:
    """Records read with one schema: columns of equal length, by name in the message.

    With an envelope the columns are `before`, `after`, `source` (structs) and `op`, else the event's own fields.
    """

    row: Ints  # index in the raw batch
    columns: Mapping[str, pa.Array]
    hints: Hints
    in_json: bool
    schema_id: int | None = None
    extra: pa.StringArray | None = None  # JSON of fields the contract does not know
    written: Columns | None = None  # the row's columns as the writer schema has them; None: there is no schema


@dataclass
class Decoded:
    """Everything one batch's values became; a decoder fills it piece by piece."""

    pieces: list[Piece] = dataclasses.field(default_factory=list)
    refusals: list[Refusal] = dataclasses.field(default_factory=list)
    counted: list[tuple[int, str]] = dataclasses.field(default_factory=list)  # (row, kind) of what is no change
    fallbacks: int = 0  # groups of records that had to be split to find a bad one

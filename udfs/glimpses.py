"""What one batch shows of its source's shape: the columns its messages have, and signs of what went on there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from contracts.added import addable
from contracts.model import Contract, UnknownFields
from udfs import slices
from udfs.converted import Mask
from udfs.decoded import Piece
from udfs.names import names_in_avro
from udfs.slices import Ints

TRUNCATE, INDEX_IDENTITY = "truncate_seen", "identity_index_suspected"

# How Debezium fills what PostgreSQL does not send of a deleted row; 0 and false equal each other, as in Python.
_FAKES = (None, 0, "", "AA==", "{}", b"")
_FAKE_BEGINNINGS = ("1970-01-01", "00:00:00")
_ZEROS: tuple[tuple[Callable[[pa.DataType], bool], Any], ...] = (
    (pa.types.is_integer, 0),
    (pa.types.is_floating, 0.0),
    (pa.types.is_string, ""),
    (pa.types.is_boolean, False),
)


@dataclass(frozen=True)
class Glimpse:
    """The columns of a row as one message has them, and which raw record of the batch shows it."""

    columns: Mapping[str, str | None]  # name in the message -> its type, where the message's schema says one
    typed: bool  # whether there is a schema
    snapshot: bool  # a row read in a snapshot, not a streamed change
    row: int  # index in the raw batch
    schema_id: int | None = None


@dataclass(frozen=True)
class Sign:
    """Something that a batch shows beside columns, by its kind and the first raw record that shows it."""

    kind: str  # truncate_seen, identity_index_suspected
    row: int
    schema_id: int | None = None


def glimpses(piece: Piece, table: pa.Table, records: pa.Table) -> list[Glimpse]:
    """Give the columns that the piece's records have: of its snapshot rows and of its streamed changes.

    Where there is no schema, one record of each stands for all: a column that comes or goes stays so.
    """
    snapshot = table["_snapshot"]
    if snapshot.null_count in (0, len(snapshot)):
        marks = [(snapshot.null_count == 0, np.ones(len(table), np.bool_))]
    else:
        read = slices.mask_of(snapshot.combine_chunks().is_valid())
        marks = [(True, read), (False, ~read)]
    has_image = _with_image(piece)
    found = []
    for in_snapshot, mask in marks:
        places = np.flatnonzero(mask & has_image)
        if len(places):
            row = int(piece.row[places[-1]])
            columns = piece.written if piece.written is not None else _named(records["value"][row].as_py(), piece)
            if columns is not None:
                found.append(Glimpse(columns, piece.written is not None, in_snapshot, row, piece.schema_id))
    return found


def signs(piece: Piece, table: pa.Table, records: pa.Table, contract: Contract) -> list[Sign]:
    """Give what the piece shows of truncates, and of deletes whose key is made up (REPLICA IDENTITY USING INDEX)."""
    if "op" not in piece.columns:
        return []
    found = []
    ops = _letters(piece.columns["op"])
    truncates = ops == ord("t")
    if truncates.any():
        found.append(Sign(TRUNCATE, int(piece.row[int(truncates.argmax())]), piece.schema_id))
    deletes = np.flatnonzero(ops == ord("d")) if contract.key and not contract.full_identity else np.zeros(0, np.int64)
    made_up = _made_up(piece, deletes, table, records, contract) if len(deletes) else None
    return [*found, *([Sign(INDEX_IDENTITY, made_up, piece.schema_id)] if made_up is not None else ())]


def _with_image(piece: Piece) -> Mask:
    after = piece.columns.get("after")
    return np.ones(len(piece.row), np.bool_) if after is None else slices.valid(after)


def _named(value: bytes, piece: Piece) -> Mapping[str, None] | None:
    """Give the names in one message without a schema; None when it is not read by the common parser."""
    record = _parsed(value)
    image = record.get("after") if "after" in piece.columns else record
    return dict.fromkeys(image) if isinstance(image, dict) else None


def _letters(op: pa.Array) -> slices.Bytes:
    """Give the letters of ops, which are one character each, as bytes."""
    held = op.cast(pa.string())
    start = int(slices.offsets(held)[0])
    return slices.data(held)[start : start + len(held)]


def _made_up(piece: Piece, deletes: Ints, table: pa.Table, records: pa.Table, contract: Contract) -> int | None:
    """Give the raw row of a delete whose key is all defaults though another column of its old row is not."""
    for field in contract.key:
        zero = next((value for of_kind, value in _ZEROS if of_kind(field.type.arrow)), None)
        if zero is None:
            return None
        keys = table[field.name].take(pa.array(deletes)).combine_chunks()
        deletes = deletes[slices.mask_of(pc.equal(keys, pa.scalar(zero, field.type.arrow)))]
    # At most one record is looked at: a table whose deletes name key 0 has more of them.
    places = deletes[:1]
    rows = [int(piece.row[place]) for place in places]
    if not rows:
        return None
    before = _before(piece, int(places[0]), records["value"][rows[0]].as_py())
    keys = {name for field in contract.key for name in (field.source, *field.aliases)}
    return rows[0] if any(not _fake(value) for name, value in before.items() if name not in keys) else None


def _before(piece: Piece, place: int, value: bytes) -> Mapping[str, Any]:
    if not piece.in_json:
        return piece.columns["before"][place].as_py() or {}
    record = _parsed(value)
    record = record["payload"] if piece.written is not None and isinstance(record.get("payload"), dict) else record
    before = record.get("before")
    return before if isinstance(before, dict) else {}


def _fake(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_fake, value.values()))
    if isinstance(value, list | bytes):
        return not any(value)
    return value in _FAKES or str(value).startswith(_FAKE_BEGINNINGS)


def _parsed(value: bytes) -> dict[str, Any]:
    try:
        record = orjson.loads(value)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def new_columns(seen: Sequence[Glimpse], contract: Contract) -> dict[str, str]:
    """Give the columns that messages have and the contract could take: name -> type; of two types, the first."""
    found: dict[str, str] = {}
    if contract.unknown_fields is not UnknownFields.ADD:
        return found
    named = names_in_avro(contract)
    for glimpse in seen:
        unknown = {name: kind for name, kind in glimpse.columns.items() if name not in named}
        found = {**addable(contract, unknown), **found}
    return found

"""One decoded piece to typed rows: which image of a change counts, its columns, and what travels beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.columns import REFINED_META
from contracts.model import Field
from contracts.types import MICROS_UTC
from udfs import envelope_tail, kinds, placeholders, position, slices, wire
from udfs.arrays import spread
from udfs.canonical import json_objects
from udfs.changes import META, SchemaSource
from udfs.converted import NOT_SENT, Converted, Mask, without
from udfs.decoded import SOURCE, Piece, Refusal, wrong_type
from udfs.message_keys import header_keys, read_keys
from udfs.plans import Plan
from udfs.slices import Ints
from udfs.wire import NO_HINT

_WITH_IMAGE = pa.array(["c", "u", "r"])  # ops whose rows have an image after the change


@dataclass(frozen=True)
class Rows:
    """Typed rows of one piece, and those among them that are refused."""

    row: Ints  # index in the raw batch
    table: pa.Table
    unset: Mapping[str, Mask]
    flags: Mapping[str, pa.StringArray]
    refusals: list[Refusal]


@dataclass
class _Columns:
    """The contract's columns while they are read."""

    values: list[pa.Array] = dataclasses.field(default_factory=list)
    unset: dict[str, Mask] = dataclasses.field(default_factory=dict)
    flags: dict[str, pa.StringArray] = dataclasses.field(default_factory=dict)
    refusals: list[Refusal] = dataclasses.field(default_factory=list)


def rows_of(piece: Piece, records: pa.Table, plan: Plan, schemas: SchemaSource, now_ms: int) -> Rows:
    """Give the typed rows of one piece: the contract's fields, then META."""
    image = piece.columns if plan.plain else _image(piece, plan)
    columns = _Columns()
    for field in plan.contract.fields:
        _read(field, image, piece, plan, columns)
    kafka = records if len(piece.row) == len(records) else records.take(pa.array(piece.row))
    if not plan.plain:
        columns.refusals += _without_image(piece)
        _complete_keys(columns, piece, kafka, plan, schemas)
    meta = _meta(piece, kafka, plan, now_ms)
    meta["_event_time"] = _event_time(columns, meta, plan)
    moved = _moved(piece, plan) if plan.contract.full_identity and not plan.plain else None
    if moved is not None:
        meta["_previous_key"] = pc.coalesce(meta["_previous_key"], moved)
    for place in plan.generated:
        _flag_unsent(columns, place, meta, plan)
    table = pa.Table.from_arrays([*columns.values, *(meta[name] for name in META.names)], schema=plan.schema)
    return Rows(piece.row, table, columns.unset, columns.flags, columns.refusals)


def _read(field: Field, image: Mapping[str, pa.Array], piece: Piece, plan: Plan, into: _Columns) -> None:
    """Read one field of the contract into the columns."""
    names = (plan.names if piece.in_json else plan.adjusted)[field.name]
    found = [(n, image[n]) for n in names if n in image]
    read = [_one(field, values, piece, plan, n, into) for n, values in found]
    stored = field.type.arrow
    if not read:
        into.values.append(pa.nulls(len(piece.row), stored))
    elif len(read) == 1:
        into.values.append(read[0])
    else:
        # Older records have the column under an older name; no record has it under two.
        into.values.append(pc.coalesce(*read) if not pa.types.is_nested(stored) else _first(read))


def _one(field: Field, values: pa.Array, piece: Piece, plan: Plan, name: str, into: _Columns) -> pa.Array:
    hint = piece.hints.get(name, NO_HINT)
    how = wire.reading(field, hint, plan.plain, piece.in_json)
    missing = placeholders.unset(values, field.type, how.base64)
    if missing is not None:
        into.unset[field.name] = missing | into.unset.get(field.name, np.zeros(len(missing), np.bool_))
        values = without(values, missing)
    converted = wire.read(values, how)
    _note(field.name, converted, piece, into)
    return converted.values


def _note(name: str, converted: Converted, piece: Piece, into: _Columns) -> None:
    if converted.flags is not None:
        held = into.flags.get(name)
        into.flags[name] = converted.flags if held is None else pc.coalesce(held, converted.flags)
    if converted.wrong is not None:
        into.refusals += [wrong_type(row, name) for row in piece.row[converted.wrong].tolist()]


def _flag_unsent(into: _Columns, place: int, meta: Mapping[str, pa.Array], plan: Plan) -> None:
    """Say of a generated column that a streamed change does not hold it: its null is no value of the source."""
    name = plan.contract.fields[place].name
    streamed = pc.and_(pc.is_in(meta["_op"], value_set=_WITH_IMAGE), meta["_snapshot"].is_null())
    unsent = pc.and_(streamed, into.values[place].is_null())
    if unsent.true_count:
        reasons = pc.if_else(unsent, NOT_SENT, pa.scalar(None, pa.string()))
        held = into.flags.get(name)
        into.flags[name] = reasons if held is None else pc.coalesce(held, reasons)


def _first(columns: list[pa.Array]) -> pa.Array:
    """Give the first value that is not null of several nested columns (coalesce does not take every nested type)."""
    whole = pa.concat_arrays(columns)
    count = len(columns[0])
    pick = np.arange(count)
    for step in range(len(columns) - 1, -1, -1):
        held = slices.valid(columns[step])
        pick[held] = np.flatnonzero(held) + step * count
    return whole.take(pa.array(pick))


def _image(piece: Piece, plan: Plan) -> dict[str, pa.Array]:
    """Give the columns of `after`; of `before` where a row is deleted: its key, and the rest if that is true."""
    after = _children(piece.columns["after"])
    deleted = slices.mask_of(pc.equal(piece.columns["op"], "d"))
    if not deleted.any():
        return after
    before = _children(piece.columns["before"])
    names = plan.names if piece.in_json else plan.adjusted
    true = {n for f in plan.contract.fields if plan.contract.full_identity or f.key_position for n in names[f.name]}
    image = dict(after)
    for name in true & before.keys():
        image[name] = _where(deleted, before[name], after.get(name))
    return image


def _where(mask: Mask, chosen: pa.Array, other: pa.Array | None) -> pa.Array:
    """Give `chosen` where the mask is true and `other` elsewhere, of any type."""
    if other is None or other.type != chosen.type:
        return without(chosen, ~mask)
    if not pa.types.is_nested(chosen.type):
        return pc.if_else(slices.marks(mask), chosen, other)
    count = len(mask)
    return pa.concat_arrays([other, chosen]).take(pa.array(np.arange(count) + np.where(mask, count, 0)))


def _children(struct: pa.Array) -> dict[str, pa.Array]:
    """Give a struct's children, null where the struct is."""
    if not pa.types.is_struct(struct.type):
        return {}
    return dict(zip((f.name for f in struct.type), struct.flatten(), strict=True))


def _without_image(piece: Piece) -> list[Refusal]:
    """Refuse rows whose op promises an image that is not there."""
    missing = slices.mask_of(piece.columns["after"].is_null())
    if not missing.any():
        return []
    written = slices.mask_of(pc.is_in(piece.columns["op"], value_set=_WITH_IMAGE))
    reason = "the change event has no image of the row after the change"
    return [Refusal(int(r), "decode", "no_envelope", reason) for r in piece.row[missing & written]]


def _complete_keys(into: _Columns, piece: Piece, kafka: pa.Table, plan: Plan, schemas: SchemaSource) -> None:
    """Take from Kafka's key what a delete without `before` does not say."""
    deleted = pc.equal(piece.columns["op"], "d")
    if not plan.contract.key or not deleted.true_count:
        return
    places = [i for i, f in enumerate(plan.contract.fields) if f.key_position]
    bare = slices.mask_of(deleted) & slices.mask_of(piece.columns["before"].is_null())
    if not bare.any():
        return
    keys = pc.if_else(slices.marks(bare), kafka["key"].combine_chunks(), pa.scalar(None, pa.binary()))
    read = read_keys(keys, plan.contract, schemas)
    for place in places:
        name = plan.contract.fields[place].name
        into.values[place] = pc.if_else(slices.marks(bare), read[name], into.values[place])


def _moved(piece: Piece, plan: Plan) -> pa.StringArray | None:
    """Give the JSON of the key that an updated row had before, where it was another one; None where none had.

    A change of the primary key comes as a delete and a create. One of columns that the contract alone calls the key, of
    a table without a primary key, is a plain update.
    """
    before, after = _children(piece.columns["before"]), _children(piece.columns["after"])
    names = plan.names if piece.in_json else plan.adjusted
    found = {f: next((n for n in names[f.name] if n in before and n in after), None) for f in plan.contract.key}
    differ = [slices.mask_of(pc.not_equal(before[n], after[n])) for n in found.values() if n is not None]
    if not differ:
        return None
    changed = slices.mask_of(pc.equal(piece.columns["op"], "u")) & np.logical_or.reduce(differ)
    if not changed.any():
        return None
    marks = slices.marks(changed)
    read = {
        f.name: wire.read(before[n].filter(marks), wire.reading(f, piece.hints.get(n, NO_HINT), False, piece.in_json))
        for f, n in found.items()
        if n is not None
    }
    return spread(json_objects(pa.table({name: one.values for name, one in read.items()})), marks)


def _meta(piece: Piece, kafka: pa.Table, plan: Plan, now_ms: int) -> dict[str, pa.Array]:
    """Give the columns of META, but for _event_time."""
    count = len(piece.row)
    offset = kafka["offset"].combine_chunks()
    nulls = {f.name: pa.nulls(count, f.type) for f in REFINED_META if f.name in ("_tx_id", "_snapshot")}
    meta: dict[str, pa.Array] = {**nulls}
    kafka_time = _micros(kafka["timestamp"].combine_chunks(), 1000)
    if plan.plain:
        where = position.of_offsets(offset)
        meta |= {"_op": _repeat(kinds.PLAIN, count, pa.string()), "_source_time": pa.nulls(count, MICROS_UTC)}
    else:
        source = _source(piece)
        where = position.of_source(source) if "sequence" in source else _cut_position(source)
        committed = pc.coalesce(_micros(source["ts_us"], 1), _micros(source["ts_ms"], 1000))
        snapshot = source["snapshot"]
        meta |= {
            "_op": piece.columns["op"],
            "_source_time": committed,
            "_tx_id": source["txId"],
            "_snapshot": pc.if_else(pc.equal(snapshot, "false"), pa.scalar(None, pa.string()), snapshot),
        }
    return meta | {
        "_position_major": where.major,
        "_position_minor": where.minor,
        "_previous_key": header_keys(kafka["old_key"], plan.contract),
        "_next_key": header_keys(kafka["new_key"], plan.contract),
        "_extra": pa.nulls(count, pa.string()) if piece.extra is None else piece.extra,
        "_topic": kafka["topic"],
        "_partition": kafka["partition"],
        "_offset": offset,
        "_kafka_time": kafka_time,
        "_schema_id": _repeat(piece.schema_id, count, pa.int32()),
        "_ingested_at": _repeat(now_ms * 1000, count, pa.int64()).view(MICROS_UTC),
    }


def _source(piece: Piece) -> dict[str, pa.Array]:
    """Give the children of `source` that are needed, null where the connector does not send them."""
    found = _children(piece.columns["source"])
    count = len(piece.row)
    wanted = envelope_tail.CUT_SOURCE if "major" in found else SOURCE
    return {f.name: _as(found[f.name], f.type) if f.name in found else pa.nulls(count, f.type) for f in wanted}


def _cut_position(source: Mapping[str, pa.Array]) -> position.Position:
    return position.Position(source["major"], pc.coalesce(source["minor"], source["lsn"]))


def _as(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if values.type == kind:
        return values
    try:
        return pc.cast(values, kind)
    except pa.ArrowException:
        return pa.nulls(len(values), kind)


def _event_time(columns: _Columns, meta: Mapping[str, pa.Array], plan: Plan) -> pa.Array:
    """Give the event-time field's value; where there is none, when the source committed or Kafka took the record."""
    otherwise = meta["_kafka_time"] if plan.plain else pc.coalesce(meta["_source_time"], meta["_kafka_time"])
    wanted = plan.contract.event_time.field
    for field, values in zip(plan.contract.fields, columns.values, strict=True):
        if field.name == wanted and (pa.types.is_timestamp(values.type) or pa.types.is_date(values.type)):
            moment = values.cast(pa.timestamp("us")) if pa.types.is_date(values.type) else values
            return pc.coalesce(moment.cast(pa.int64()).view(MICROS_UTC), otherwise)
    return otherwise


def _micros(numbers: pa.Array, factor: int) -> pa.Array:
    """Give moments from whole units; a number beyond int64 wraps, which only a broken clock can send."""
    scaled = numbers if factor == 1 else pc.multiply(numbers, factor)
    return scaled.view(MICROS_UTC)


def _repeat(value: object, count: int, kind: pa.DataType) -> pa.Array:
    if value is None:
        return pa.nulls(count, kind)
    if pa.types.is_integer(kind):
        return pa.array(np.full(count, value, kind.to_pandas_dtype()))
    return pa.array([value], kind).take(pa.array(np.zeros(count, np.int8)))

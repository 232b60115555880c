"""How each declared column type stands in a message, and how it is read: the table WIRE is the documentation.

Debezium's representations: https://debezium.io/documentation/reference/stable/connectors/postgresql.html, "Data type
mappings", with decimal.handling.mode=precise and time.precision.mode=adaptive (the defaults).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from contracts.model import Field
from contracts.types import ColumnType
from udfs import base64s, decimals, slices, times
from udfs.converted import Converted, all_wrong, flagged, refused
from udfs.slices import Ints

S, I, F, B = pa.string(), pa.int64(), pa.float64(), pa.bool_()  # noqa: E741
POINT = pa.struct([("x", F), ("y", F)])
VARIABLE = pa.struct([("scale", pa.int32()), ("value", S)])  # io.debezium.data.VariableScaleDecimal
MANY_DIGITS = pa.decimal256(76, 30)  # how a plain event's number without a declared scale is read exactly


@dataclass(frozen=True)
class Hint:
    """What a writer schema says about one field: the unit of its number, the scale of its decimal."""

    unit: str | None = None  # s, ms, us or ns
    scale: int | None = None


Hints = Mapping[str, Hint]  # by name in the message
NO_HINT = Hint()


@dataclass(frozen=True)
class Reading:
    """One column about to be read: its type, and the unit and scale of what was sent."""

    type: ColumnType
    unit: str
    scale: int
    base64: bool  # bytes arrive as base64 text


Read = Callable[[pa.Array, Reading], Converted]


@dataclass(frozen=True)
class Wire:
    """One type's shape in Debezium's JSON, its shape in a plain event's JSON, and how either (or Avro) is read."""

    debezium: pa.DataType
    plain: pa.DataType
    read: Read


def reading(field: Field, hint: Hint, plain: bool, in_json: bool) -> Reading:
    """Say how a field's values are read; the message's own schema wins over the contract."""
    kind = field.type.element or field.type
    precision = 6 if kind.precision is None else kind.precision
    unit = hint.unit or field.time_unit or ("ms" if precision <= 3 else "us")
    declared = kind.arrow.scale if pa.types.is_decimal(kind.arrow) else 0
    # A plain event's decimals are numbers or text; its bytes are base64 like Debezium's.
    base64 = in_json and (not plain or kind.name == "bytea")
    return Reading(field.type, unit, declared if hint.scale is None else hint.scale, base64)


def json_type(field: Field, plain: bool) -> pa.DataType:
    """Give the type with which a field is read from JSON."""
    return _json_type(field.type, plain, field.time_unit is not None)


def _json_type(kind: ColumnType, plain: bool, numeric_time: bool) -> pa.DataType:
    if kind.element is not None:
        return pa.list_(_json_type(kind.element, plain, numeric_time))
    if not plain:
        if kind.name == "numeric" and kind.arrow == S:
            return VARIABLE
        return B if _is_flag(kind) else WIRE[kind.name].debezium
    if numeric_time and kind.name in ("date", "time", "timestamp", "timestamptz"):
        return I
    return kind.arrow if pa.types.is_decimal(kind.arrow) else WIRE[kind.name].plain


def read(values: pa.Array, how: Reading) -> Converted:
    """Give a column as stored. Values of another type than the declared one are refused, never guessed at."""
    if pa.types.is_null(values.type):
        return Converted(pa.nulls(len(values), how.type.arrow))
    values = _usual(values)
    if how.type.element is not None:
        return _array(values, how)
    return WIRE[how.type.name].read(values, how)


def _usual(values: pa.Array) -> pa.Array:
    """Bring large, view and dictionary layouts into the plain ones."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _usual(values.dictionary_decode())
    if pa.types.is_large_string(kind):
        return values.cast(pa.string())
    if pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return values.cast(pa.binary())
    return values.cast(I) if pa.types.is_integer(kind) and kind != I else values


def _integer(values: pa.Array, how: Reading) -> Converted:
    return Converted(values) if values.type == I else all_wrong(values, I)


def _real(values: pa.Array, how: Reading) -> Converted:
    if values.type == pa.float32():
        return Converted(values)
    if not pa.types.is_floating(values.type):
        return all_wrong(values, pa.float32())
    narrowed = values.cast(pa.float32(), safe=False)
    grown = slices.mask_of(pc.and_(pc.is_inf(narrowed), pc.is_finite(values)))
    return flagged(narrowed, None, grown)


def _double(values: pa.Array, how: Reading) -> Converted:
    return Converted(values.cast(F)) if pa.types.is_floating(values.type) else all_wrong(values, F)


def _boolean(values: pa.Array, how: Reading) -> Converted:
    return Converted(values) if values.type == B else all_wrong(values, B)


def _text(values: pa.Array, how: Reading) -> Converted:
    if values.type == S:
        return Converted(values)
    if pa.types.is_nested(values.type):
        return Converted(_json_text(values))
    return all_wrong(values, S)


def _bytes(values: pa.Array, how: Reading) -> Converted:
    raw = _raw(values, how)
    return raw if raw.values.type == pa.binary() else all_wrong(values, pa.binary())


def _numeric(values: pa.Array, how: Reading) -> Converted:
    """numeric(p,s) and money as decimals, numeric without a precision as exact text."""
    if pa.types.is_struct(values.type):
        written = _variable(values, how)
        return written if how.type.arrow == S else _from_text(written, how)
    if pa.types.is_decimal(values.type):
        return decimals.rescale(values, how.type.arrow) if how.type.arrow != S else _plain_text(values)
    if values.type == S and not how.base64:
        return _from_text(Converted(values), how)
    raw = _raw(values, how)
    if raw.values.type != pa.binary():
        return all_wrong(values, how.type.arrow)
    if how.type.arrow == S:
        return _both(decimals.text(raw.values, np.full(len(values), how.scale, np.int64)), raw)
    return _both(decimals.from_bytes(raw.values, how.scale, how.type.arrow), raw)


def _variable(values: pa.StructArray, how: Reading) -> Converted:
    """Read Debezium's VariableScaleDecimal: each value carries its scale."""
    children = dict(zip((f.name for f in values.type), values.flatten(), strict=True))
    if "scale" not in children or "value" not in children:
        return all_wrong(values, S)
    raw = _raw(_usual(children["value"]), how)
    if raw.values.type != pa.binary():
        return all_wrong(values, S)
    scales = _usual(children["scale"]).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return _both(decimals.text(raw.values, scales), raw)


def _from_text(text: Converted, how: Reading) -> Converted:
    """Read decimal text one by one: Arrow 16 has no exact cast from text to decimal."""
    read = [None if v is None else decimals.parse(v) for v in text.values.to_pylist()]
    wrong = np.array([r is None for r in read], np.bool_) & slices.valid(text.values)
    if how.type.arrow == S:
        values = pa.array([None if r is None else decimals.canonical(r) for r in read], S)
        return _both(Converted(values, None, wrong if wrong.any() else None), text)
    fitted = decimals.from_decimals(read, how.type.arrow)
    return _both(_both(fitted, Converted(text.values, None, wrong if wrong.any() else None)), text)


def _plain_text(values: pa.Array) -> Converted:
    return Converted(pa.array([None if v is None else decimals.canonical(v) for v in values.to_pylist()], S))


def _timestamp(values: pa.Array, how: Reading) -> Converted:
    stored = how.type.arrow
    if values.type == S:
        return times.timestamp_from_text(values, stored)
    if values.type == I:
        return times.timestamp_from_number(values, how.unit, stored)
    if pa.types.is_timestamp(values.type):
        micros = values.cast(pa.timestamp("us", values.type.tz), safe=False).cast(I)
        return times.timestamp_from_number(micros, "us", stored)
    return all_wrong(values, stored)


def _date(values: pa.Array, how: Reading) -> Converted:
    if values.type == S:
        return times.date_from_text(values)
    return times.date_from_number(values) if values.type == I else all_wrong(values, pa.date32())


def _time(values: pa.Array, how: Reading) -> Converted:
    return times.time_from_number(values, how.unit) if values.type == I else _text(values, how)


def _bits(values: pa.Array, how: Reading) -> Converted:
    """Read Debezium's little-endian bytes; bit(1) is a boolean; the length of bit varying is not sent."""
    if values.type == B:
        return Converted(pc.if_else(values, "1", "0"))
    if values.type == S and not how.base64:
        return Converted(values)
    raw = _raw(values, how)
    if raw.values.type != pa.binary():
        return all_wrong(values, S)
    width = (how.type.precision or 1) if how.type.name == "bit" else 1
    # Few distinct values: the loop runs over those only.
    coded = raw.values.dictionary_encode()
    written = [f"{int.from_bytes(v, 'little'):0{width}b}" for v in coded.dictionary.to_pylist()]
    return Converted(pa.array(written, S).take(coded.indices), None, raw.wrong)


def _point(values: pa.Array, how: Reading) -> Converted:
    if not pa.types.is_struct(values.type) or not {"x", "y"} <= {f.name for f in values.type}:
        return all_wrong(values, POINT)
    x, y = (values.field(values.type.get_field_index(n)).cast(F) for n in ("x", "y"))
    return Converted(pa.StructArray.from_arrays([x, y], fields=list(POINT), mask=values.is_null()))


def _array(values: pa.Array, how: Reading) -> Converted:
    """Read the elements as one column, then put the lists around them again."""
    element = how.type.element
    assert element is not None
    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        return all_wrong(values, how.type.arrow)
    inner = read(pc.list_flatten(values), Reading(element, how.unit, how.scale, how.base64))
    lengths = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(bounds), inner.values.cast(element.arrow))
    if values.null_count:
        valid = values.is_valid().buffers()[1]
        lists = pa.Array.from_buffers(lists.type, len(lists), [valid, lists.buffers()[1]], children=[lists.values])
    return _outer(lists, inner, np.repeat(np.arange(len(values)), lengths))


def _outer(lists: pa.ListArray, inner: Converted, parent: Ints) -> Converted:
    """Carry what was found in elements to their rows."""
    flags, wrong = None, None
    if inner.flags is not None:
        reasons: list[str | None] = [None] * len(lists)
        for index in np.flatnonzero(slices.valid(inner.flags)):
            reasons[parent[index]] = inner.flags[int(index)].as_py()
        flags = pa.array(reasons, S)
    if inner.wrong is not None:
        wrong = np.zeros(len(lists), np.bool_)
        wrong[parent[inner.wrong]] = True
    return Converted(lists, flags, wrong)


def _raw(values: pa.Array, how: Reading) -> Converted:
    """Give the bytes of a column that holds bytes, or base64 text where bytes are sent so."""
    if how.base64 and values.type == S:
        decoded, wrong = base64s.decode(values)
        return Converted(decoded, None, wrong)
    return Converted(values)


def _json_text(values: pa.Array) -> pa.StringArray:
    """Write nested values as JSON text, one by one: Arrow has no kernel for it and such fields are rare."""
    is_map = pa.types.is_map(values.type)
    plain = (None if v is None else dict(v) if is_map else v for v in values.to_pylist())
    return pa.array([None if v is None else orjson.dumps(v, default=str).decode() for v in plain], S)


def _both(converted: Converted, before: Converted) -> Converted:
    """Keep what an earlier step found wrong."""
    if before.wrong is None:
        return converted
    wrong = before.wrong if converted.wrong is None else before.wrong | converted.wrong
    return refused(converted.values, wrong, converted.flags)


def _is_flag(kind: ColumnType) -> bool:
    return kind.name == "bit" and (kind.precision or 1) == 1


WIRE: dict[str, Wire] = {
    "smallint": Wire(I, I, _integer),
    "integer": Wire(I, I, _integer),
    "bigint": Wire(I, I, _integer),
    "oid": Wire(I, I, _integer),
    "interval": Wire(I, I, _integer),  # microseconds; a month counts as 30.4375 days
    "real": Wire(F, F, _real),
    "double precision": Wire(F, F, _double),
    "boolean": Wire(B, B, _boolean),
    "text": Wire(S, S, _text),
    "varchar": Wire(S, S, _text),
    "char": Wire(S, S, _text),  # padded to its length
    "citext": Wire(S, S, _text),
    "ltree": Wire(S, S, _text),
    "xml": Wire(S, S, _text),
    "enum": Wire(S, S, _text),
    "tsvector": Wire(S, S, _text),
    "uuid": Wire(S, S, _text),
    "json": Wire(S, S, _text),  # as the text was written
    "jsonb": Wire(S, S, _text),
    "hstore": Wire(S, S, _text),  # hstore.handling.mode=json; a map is written as JSON text
    "inet": Wire(S, S, _text),
    "cidr": Wire(S, S, _text),
    "macaddr": Wire(S, S, _text),
    "macaddr8": Wire(S, S, _text),
    "int4range": Wire(S, S, _text),
    "int8range": Wire(S, S, _text),
    "numrange": Wire(S, S, _text),
    "tsrange": Wire(S, S, _text),
    "tstzrange": Wire(S, S, _text),
    "daterange": Wire(S, S, _text),
    "bytea": Wire(S, S, _bytes),  # base64
    "numeric": Wire(S, MANY_DIGITS, _numeric),  # base64 of the unscaled value; without a precision see VARIABLE
    "money": Wire(S, S, _numeric),
    "date": Wire(I, S, _date),  # days since 1970
    "time": Wire(I, S, _time),  # time(0..3) in ms, else us
    "timetz": Wire(S, S, _text),  # ISO text in UTC
    "timestamp": Wire(I, S, _timestamp),  # timestamp(0..3) in ms, else us
    "timestamptz": Wire(S, S, _timestamp),  # ISO text in UTC
    "bit": Wire(S, S, _bits),
    "varbit": Wire(S, S, _bits),
    "point": Wire(POINT, POINT, _point),
}

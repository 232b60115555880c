"""What PostgreSQL holds, as the tables store it: per type the SQL that asks for it as text, and how the text is read.

The answer of `COPY ... (FORMAT csv, FORCE_QUOTE *)` is read by Arrow; what Arrow cannot read exactly is finished here.
A value that the stored type cannot hold (infinity, the year 12000, NaN in a numeric) is null, as in the pipeline.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from contracts.model import Contract, Field, Unrepresentable
from contracts.types import ColumnType

Finish = Callable[[pa.Array], pa.Array]
S = pa.string()

_DATES = "({c} >= '0001-01-01' AND {c} <= '9999-12-31')"
_MOMENTS = "({c} >= '0001-01-01 00:00:00+00' AND {c} < '10000-01-01 00:00:00+00')"
_NUMBER = "({c}::text !~ '[Ny]')"  # neither NaN nor an infinity
# Exact in whole microseconds; a month is 30.4375 days, as Debezium has it.
_INTERVAL = (
    "((extract(year FROM {c}) * 12 + extract(month FROM {c})) * 2629800000000 + extract(day FROM {c}) * 86400000000"
    " + extract(hour FROM {c}) * 3600000000 + extract(minute FROM {c}) * 60000000 + extract(microseconds FROM {c}))"
    "::bigint"
)


@dataclass(frozen=True)
class Asked:
    """How one column is asked for ({c} is the quoted column) and read."""

    sql: str = "{c}"  # the type's own text
    arrow: pa.DataType = S  # which Arrow's CSV reader gives
    finish: Finish | None = None  # to the stored type
    lost: str | None = None  # true for a value that exists and is stored as null
    refused: str | None = None  # true for a value for which the pipeline refuses the record


def _hex(texts: pa.StringArray) -> pa.BinaryArray:
    """Read hexadecimal text, all values at once."""
    lengths = pc.divide(pc.binary_length(texts), 2).fill_null(0).to_numpy(zero_copy_only=False)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    data = bytes.fromhex("".join(texts.drop_null().to_pylist()))
    valid = texts.is_valid().buffers()[1] if texts.null_count else None
    made = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(texts), [valid, pa.py_buffer(bounds.astype(np.int64)), pa.py_buffer(data)]
    )
    return made.cast(pa.binary())


def _utc(values: pa.TimestampArray) -> pa.TimestampArray:
    return values.cast(pa.int64()).view(pa.timestamp("us", tz="UTC"))


def _point(texts: pa.StringArray) -> pa.StructArray:
    parts = pc.split_pattern(texts, ",")
    x, y = (pc.list_element(parts, place).cast(pa.float64()) for place in (0, 1))
    return pa.StructArray.from_arrays([x, y], ["x", "y"], mask=texts.is_null())


_PAIR = re.compile(r'"((?:[^"\\]|\\.)*)"=>(?:NULL|"((?:[^"\\]|\\.)*)")', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def _hstore(texts: pa.StringArray) -> pa.StringArray:
    """Write hstore as JSON; one by one, because no kernel reads it and such columns are rare."""
    return pa.array([None if text is None else _hstore_json(text) for text in texts.to_pylist()], S)


def _hstore_json(text: str) -> str:
    pairs = [(match[1], match[2]) for match in _PAIR.finditer(text)]
    plain = {_ESCAPED.sub(r"\1", k): None if v is None else _ESCAPED.sub(r"\1", v) for k, v in pairs}
    return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS).decode()


_INTEGER = Asked("{c}::bigint", pa.int64())

# Type name -> how it is asked for; a type that is not here is asked for as its own text and stored so.
ASKED: Mapping[str, Asked] = {
    "smallint": _INTEGER,
    "integer": _INTEGER,
    "bigint": _INTEGER,
    "oid": _INTEGER,
    "real": Asked("{c}::real", pa.float32()),
    "double precision": Asked("{c}::double precision", pa.float64()),
    "boolean": Asked("{c}::boolean", pa.bool_()),
    "bytea": Asked("encode({c}, 'hex')", S, _hex),
    "hstore": Asked("{c}", S, _hstore),
    "date": Asked(f"CASE WHEN {_DATES} THEN {{c}}::date END", pa.date32(), lost=f"NOT {_DATES}"),
    "timetz": Asked("replace(({c} AT TIME ZONE 'UTC')::text, '+00', 'Z')"),
    "timestamp": Asked(f"CASE WHEN {_MOMENTS} THEN {{c}} END", pa.timestamp("us"), lost=f"NOT {_MOMENTS}"),
    "timestamptz": Asked(
        f"CASE WHEN {_MOMENTS} THEN {{c}} AT TIME ZONE 'UTC' END", pa.timestamp("us"), _utc, f"NOT {_MOMENTS}"
    ),
    "interval": Asked(_INTERVAL, pa.int64()),
    # The length of a bit varying is not sent: zeros on the left are not known.
    "varbit": Asked("CASE WHEN {c} IS NOT NULL THEN coalesce(nullif(ltrim({c}::text, '0'), ''), '0') END"),
    "point": Asked("({c})[0]::text || ',' || ({c})[1]::text", S, _point),
    "money": Asked("{c}::numeric(38,2)", pa.decimal128(38, 2)),
    "numeric": Asked(f"CASE WHEN {_NUMBER} THEN trim_scale({{c}}::numeric) END", lost=f"NOT {_NUMBER}"),
}


def asked(kind: ColumnType) -> Asked:
    """Give how a column of a declared type is asked for and read."""
    if kind.element is not None:
        return _array(asked(kind.element), kind.element)
    if kind.name == "numeric" and pa.types.is_decimal(kind.arrow):
        return _decimal(kind.arrow)
    return ASKED.get(kind.name, Asked())


def _decimal(stored: pa.Decimal128Type) -> Asked:
    exact = f"round({{c}}::numeric, {stored.scale})"
    fits = f"(abs({{c}}::numeric) < 1e{stored.precision - stored.scale} AND {exact} = {{c}})"
    nan = "{c}::numeric = 'NaN'"
    return Asked(f"CASE WHEN {fits} THEN {exact} END", stored, lost=nan, refused=f"NOT ({nan}) AND NOT {fits}")


def _array(element: Asked, kind: ColumnType) -> Asked:
    """Ask for an array as JSON of its elements' texts; of a multi-dimensional one the inner arrays are null."""
    each = element.sql.format(c="e")
    nulls = "array_to_json(array_fill(NULL::text, ARRAY[array_length({c}, 1)]))"
    texts = f"json_agg(CASE WHEN ({each}) IS NOT NULL THEN format('%s', {each}) END ORDER BY o)"
    listed = f"(SELECT coalesce({texts}, '[]') FROM unnest({{c}}) WITH ORDINALITY AS u(e, o))"
    sql = f"CASE WHEN array_ndims({{c}}) > 1 THEN {nulls} WHEN {{c}} IS NOT NULL THEN {listed} END"

    def finish(texts: pa.StringArray) -> pa.ListArray:
        # JSON one by one: Arrow reads none from a column.
        lists = pa.array([None if t is None else orjson.loads(t) for t in texts.to_pylist()], pa.list_(S))
        values = _parsed(lists.flatten(), element.arrow)
        values = values if element.finish is None else element.finish(values)
        lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
        absent = np.append(lists.is_null().to_numpy(zero_copy_only=False), False)
        offsets = pa.array(np.cumsum([0, *lengths]), pa.int32(), mask=absent)  # a null offset makes a null list
        return pa.ListArray.from_arrays(offsets, values.cast(kind.arrow))

    return Asked(sql, S, finish)


def _parsed(texts: pa.StringArray, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_boolean(wanted):
        return pc.equal(texts, "t")
    if pa.types.is_decimal(wanted):  # Arrow 16 has no exact cast from text to decimal
        return pa.array([None if t is None else Decimal(t) for t in texts.to_pylist()], wanted)
    return pc.cast(texts, wanted)


def selected(field: Field, column: str | None) -> str:
    """Give the SQL expression that asks for a field; `column` is its quoted name in the source, None: it has none."""
    return "NULL" if column is None else asked(field.type).sql.format(c=column)


def refused(contract: Contract, columns: Mapping[str, str | None]) -> str:
    """Give the SQL condition for rows that the pipeline refuses, because a value does not fit its declared type."""
    conditions = ["false"]
    for field in contract.fields:
        how, column = asked(field.type), columns[field.name]
        lossy = how.lost if contract.unrepresentable is Unrepresentable.QUARANTINE else None
        found = [condition.format(c=column) for condition in (how.refused, lossy) if condition and column]
        conditions += [f"({column} IS NOT NULL AND {condition})" for condition in found]
    return " OR ".join(conditions)


def stored(values: pa.Array, field: Field) -> pa.Array:
    """Give a column as the tables store it (unmasked) from what Arrow read."""
    how = asked(field.type)
    finished = values if how.finish is None else how.finish(values)
    return finished if finished.type == field.type.arrow else finished.cast(field.type.arrow)

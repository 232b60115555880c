"""Column types: what a source column's declared type means in Arrow and therefore in Delta.

A column's type is declared once, in its contract, as the source database writes it (`numeric(12,2)`, `text[]`).
Integers are stored as long and decimals with 38 digits, so that a source may widen a column without a rewrite.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa

MICROS = pa.timestamp("us")
MICROS_UTC = pa.timestamp("us", tz="UTC")
MAX_DECIMAL_DIGITS = 38


@dataclass(frozen=True)
class ColumnType:
    """One source column type: its canonical name, its parameters and the Arrow type it is stored as."""

    name: str  # canonical name without parameters, such as "numeric"; "array" for arrays
    arrow: pa.DataType
    precision: int | None = None
    scale: int | None = None
    element: ColumnType | None = None  # of an array

    @property
    def toastable(self) -> bool:
        """Whether PostgreSQL may leave an unchanged value of this type out of an update (TOAST)."""
        return self.name in TOASTABLE


# Canonical name -> stored Arrow type. The table is the documentation (see also docs/contracts.md).
STORED: dict[str, pa.DataType] = {
    "smallint": pa.int64(),
    "integer": pa.int64(),
    "bigint": pa.int64(),
    "oid": pa.int64(),
    "real": pa.float32(),
    "double precision": pa.float64(),
    "boolean": pa.bool_(),
    "text": pa.string(),
    "varchar": pa.string(),
    "char": pa.string(),
    "citext": pa.string(),
    "ltree": pa.string(),
    "xml": pa.string(),
    "enum": pa.string(),
    "tsvector": pa.string(),
    "bytea": pa.binary(),
    "uuid": pa.string(),
    "json": pa.string(),
    "jsonb": pa.string(),
    "hstore": pa.string(),  # JSON object text
    "date": pa.date32(),
    "time": pa.string(),  # ISO 8601, because 24:00:00 is a valid PostgreSQL time and no Arrow one
    "timetz": pa.string(),
    "timestamp": MICROS,
    "timestamptz": MICROS_UTC,
    "interval": pa.int64(),  # microseconds, as Debezium approximates it
    "bit": pa.string(),  # "10110"
    "varbit": pa.string(),
    "inet": pa.string(),
    "cidr": pa.string(),
    "macaddr": pa.string(),
    "macaddr8": pa.string(),
    "int4range": pa.string(),
    "int8range": pa.string(),
    "numrange": pa.string(),
    "tsrange": pa.string(),
    "tstzrange": pa.string(),
    "daterange": pa.string(),
    "point": pa.struct([("x", pa.float64()), ("y", pa.float64())]),
    "money": pa.decimal128(MAX_DECIMAL_DIGITS, 2),
    "numeric": pa.string(),  # without a precision: the exact decimal text; numeric(p,s) becomes decimal(38,s)
}

ALIASES: dict[str, str] = {
    "int2": "smallint", "smallserial": "smallint",
    "int": "integer", "int4": "integer", "serial": "integer",
    "int8": "bigint", "bigserial": "bigint", "long": "bigint",
    "float4": "real", "float": "double precision", "float8": "double precision", "double": "double precision",
    "bool": "boolean",
    "character varying": "varchar", "character": "char", "bpchar": "char", "string": "text",
    "decimal": "numeric",
    "timestamp without time zone": "timestamp", "timestamp with time zone": "timestamptz",
    "time without time zone": "time", "time with time zone": "timetz",
    "bit varying": "varbit",
}  # fmt: skip

TOASTABLE = frozenset(
    {"text", "varchar", "char", "citext", "ltree", "xml", "tsvector", "bytea", "json", "jsonb", "hstore", "numeric",
     "bit", "varbit", "array", "int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange"}
)  # fmt: skip

_DECLARED = re.compile(
    r"^\s*(?P<name>[a-z0-9_ ]+?)\s*(?:\((?P<args>[\d\s,]+)\))?(?P<rest>[a-z ]*?)\s*(?P<dims>(?:\[\])*)\s*$"
)


def parse_type(declared: str) -> ColumnType:
    """Give the column type that a source declaration such as `numeric(12,2)` or `text[]` names.

    Raises ValueError naming the declaration when the type is unknown or cannot be stored exactly.
    """
    found = _DECLARED.match(declared.lower())
    if not found:
        raise ValueError(f"cannot read the type {declared!r}")
    dimensions = found["dims"].count("[]")
    if dimensions > 1:
        raise ValueError(f"{declared!r}: Debezium sends null for the inner arrays of a multi-dimensional array")
    name = " ".join(f"{found['name']}{found['rest']}".split())
    name = ALIASES.get(name, name)
    if name not in STORED:
        raise ValueError(f"unknown type {declared!r}; known are {', '.join(sorted(STORED))}")
    args = tuple(int(a) for a in found["args"].split(",")) if found["args"] else ()
    scalar = _scalar(declared, name, args)
    if not dimensions:
        return scalar
    return ColumnType("array", pa.list_(scalar.arrow), element=scalar)


def _scalar(declared: str, name: str, args: tuple[int, ...]) -> ColumnType:
    if name != "numeric" or not args:
        return ColumnType(name, STORED[name], precision=args[0] if args else None)
    precision, scale = args[0], args[1] if len(args) > 1 else 0
    if not 0 <= scale <= precision <= MAX_DECIMAL_DIGITS:
        raise ValueError(f"{declared!r}: Delta stores decimals of at most {MAX_DECIMAL_DIGITS} digits")
    return ColumnType(name, pa.decimal128(MAX_DECIMAL_DIGITS, scale), precision, scale)

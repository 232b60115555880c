"""What a writer schema says of a column's type, in the words in which contracts declare types.

Kafka Connect's schemas and Avro's with Connect's annotations say the same in two ways; Debezium's semantic types are
listed in https://debezium.io/documentation/reference/stable/connectors/postgresql.html, "Data type mappings".
"""

from __future__ import annotations

from typing import Any

from contracts.types import MAX_DECIMAL_DIGITS, ColumnType

Schema = dict[str, Any]

DECIMAL = "org.apache.kafka.connect.data.Decimal"
BITS = "io.debezium.data.Bits"

# Name of a semantic type -> the type it was made from, as far as it tells.
SEMANTIC = {
    "io.debezium.time.Date": "date",
    "io.debezium.time.Time": "time(3)",
    "io.debezium.time.MicroTime": "time",
    "io.debezium.time.NanoTime": "time",
    "io.debezium.time.ZonedTime": "timetz",
    "io.debezium.time.Timestamp": "timestamp(3)",
    "io.debezium.time.MicroTimestamp": "timestamp",
    "io.debezium.time.NanoTimestamp": "timestamp",
    "io.debezium.time.ZonedTimestamp": "timestamptz",
    "io.debezium.time.MicroDuration": "interval",
    "io.debezium.data.Json": "json",
    "io.debezium.data.Uuid": "uuid",
    "io.debezium.data.Xml": "xml",
    "io.debezium.data.Ltree": "ltree",
    "io.debezium.data.Tsvector": "tsvector",
    "io.debezium.data.VariableScaleDecimal": "numeric",
    "io.debezium.data.geometry.Point": "point",
    "org.apache.kafka.connect.data.Date": "date",
    "org.apache.kafka.connect.data.Time": "time(3)",
    "org.apache.kafka.connect.data.Timestamp": "timestamp(3)",
}

# Connect's and Avro's own types.
PRIMITIVE = {
    **dict.fromkeys(("int8", "int16"), "smallint"),
    **dict.fromkeys(("int32", "int"), "integer"),
    **dict.fromkeys(("int64", "long"), "bigint"),
    **dict.fromkeys(("float", "float32"), "real"),
    **dict.fromkeys(("double", "float64"), "double precision"),
    **dict.fromkeys(("string", "enum"), "text"),
    **dict.fromkeys(("bytes", "fixed"), "bytea"),
    "boolean": "boolean",
    "map": "hstore",
}

# Avro's logical types.
LOGICAL = {
    "date": "date",
    **dict.fromkeys(("time-millis", "time-micros"), "time"),
    **dict.fromkeys(("timestamp-millis", "timestamp-micros", "timestamp-nanos"), "timestamptz"),
    **dict.fromkeys(("local-timestamp-millis", "local-timestamp-micros", "local-timestamp-nanos"), "timestamp"),
    "uuid": "uuid",
}

# Types whose values go over the wire in the same form; those of one family are read alike. Others: text.
FAMILIES = {
    **dict.fromkeys(("smallint", "integer", "bigint", "oid"), "integer"),
    **dict.fromkeys(("real", "double precision"), "float"),
    **dict.fromkeys(("numeric", "money"), "number"),
    **dict.fromkeys(("bit", "varbit"), "bits"),
    **{name: name for name in ("boolean", "bytea", "date", "time", "timestamp", "timestamptz", "interval", "point")},
}
_WIDTH = {"smallint": 1, "integer": 2, "bigint": 3, "oid": 3, "real": 1, "double precision": 2}


def connect_type(schema: Schema) -> str | None:
    """Give the type of a Connect schema; None when no contract type says the same."""
    kind, name = str(schema.get("type")), str(schema.get("name"))
    if kind == "array":
        items = schema.get("items")
        inner = connect_type(items) if isinstance(items, dict) else None
        return f"{inner}[]" if inner and not inner.endswith("[]") else None
    parameters = schema.get("parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    if name == DECIMAL:
        return _numeric(parameters.get("connect.decimal.precision"), parameters.get("scale", 0))
    if name == BITS:
        return f"bit({parameters.get('length', 1)})"
    return SEMANTIC.get(name) or PRIMITIVE.get(kind)


def _numeric(digits: object, scale: object) -> str:
    """Name a decimal; Avro says 64 digits where it does not know, and more than 38 are no decimal here."""
    try:
        places, most = int(str(scale)), int(str(digits or MAX_DECIMAL_DIGITS))
    except ValueError:
        return "numeric"
    most = min(most, MAX_DECIMAL_DIGITS)
    return f"numeric({most},{places})" if 0 <= places <= most else "numeric"


def written(column: ColumnType) -> str:
    """Give a declared type as text."""
    if column.element is not None:
        return f"{written(column.element)}[]"
    digits = [str(n) for n in (column.precision, column.scale) if n is not None]
    return column.name + (f"({','.join(digits)})" if digits else "")


def compared(declared: ColumnType, sent: ColumnType) -> str | None:
    """Say whether a message's type is `type_widened` or `type_changed` against the declared one; None: it fits."""
    if declared.element is not None and sent.element is not None:
        return compared(declared.element, sent.element)
    if (declared.element is None) != (sent.element is None):
        return "type_changed"
    own, other = (FAMILIES.get(kind.name, "text") for kind in (declared, sent))
    if own != other:
        # bit(1) is sent as a boolean.
        return None if (own, other) == ("bits", "boolean") else "type_changed"
    if declared.name in _WIDTH and sent.name in _WIDTH:
        return "type_widened" if _WIDTH[sent.name] > _WIDTH[declared.name] else None
    if None in (declared.scale, sent.scale) or None in (declared.precision, sent.precision):
        return None  # money, and numeric without a precision, which takes every number
    return _digits(declared, sent)


def _digits(declared: ColumnType, sent: ColumnType) -> str | None:
    """Compare decimals; a schema that does not say the precision has the most digits there are."""
    scale, whole = (sent.scale or 0) - (declared.scale or 0), 0
    if sent.precision != MAX_DECIMAL_DIGITS:
        whole = (sent.precision or 0) - (sent.scale or 0) - (declared.precision or 0) + (declared.scale or 0)
    return "type_widened" if scale > 0 or whole > 0 else None

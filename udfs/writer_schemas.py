"""What the writer schema of a message says about its columns: units of times and scales of decimals.

Both Kafka Connect's JSON schema and Avro with Connect's annotations are read; so are Avro's own logical types.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from udfs.wire import NO_HINT, Hint, Hints
from udfs.written_types import DECIMAL, LOGICAL, connect_type

Schema = Any  # parsed JSON
Columns = Mapping[str, str | None]  # name in the message -> type as contracts declare it; None: no such type

# Name of a semantic type -> unit of its number.
UNITS = {
    "io.debezium.time.Timestamp": "ms",
    "io.debezium.time.MicroTimestamp": "us",
    "io.debezium.time.NanoTimestamp": "ns",
    "io.debezium.time.Time": "ms",
    "io.debezium.time.MicroTime": "us",
    "io.debezium.time.NanoTime": "ns",
    "org.apache.kafka.connect.data.Timestamp": "ms",
    "org.apache.kafka.connect.data.Time": "ms",
    "timestamp-millis": "ms",
    "timestamp-micros": "us",
    "timestamp-nanos": "ns",
    "local-timestamp-millis": "ms",
    "local-timestamp-micros": "us",
    "local-timestamp-nanos": "ns",
    "time-millis": "ms",
    "time-micros": "us",
}


def connect_hints(schema: Schema, envelope: bool) -> Hints:
    """Give the hints of a Connect JSON schema's columns (those of `after` inside an envelope)."""
    hints = {name: _connect_hint(f) for name, f in _connect_columns(schema, envelope).items()}
    return {name: hint for name, hint in hints.items() if hint != NO_HINT}


def connect_columns(schema: Schema, envelope: bool) -> Columns:
    """Give the columns that a Connect JSON schema has, with their types."""
    return {name: connect_type(f) for name, f in _connect_columns(schema, envelope).items()}


def _connect_columns(schema: Schema, envelope: bool) -> dict[str, dict[str, Any]]:
    columns = _connect_fields(schema)
    if envelope:
        after = [f for f in columns if f.get("field") in ("after", "before")]
        columns = [f for image in after for f in _connect_fields(image)]
    return {str(f["field"]): f for f in columns if "field" in f}


def _connect_fields(schema: Schema) -> list[dict[str, Any]]:
    fields = schema.get("fields") if isinstance(schema, dict) else None
    return [f for f in fields if isinstance(f, dict)] if isinstance(fields, list) else []


def _connect_hint(schema: dict[str, Any]) -> Hint:
    items = schema.get("items")
    if schema.get("type") == "array" and isinstance(items, dict):
        return _connect_hint(items)
    parameters = schema.get("parameters")
    scale = parameters.get("scale") if isinstance(parameters, dict) else None
    return Hint(UNITS.get(str(schema.get("name"))), _whole(scale))


def avro_hints(schema: Schema, envelope: bool) -> Hints:
    """Give the hints of an Avro writer schema's columns (those of `after` inside an envelope)."""
    named = dict(_named(schema))
    columns = schema
    if envelope:
        images = [f["type"] for f in _avro_fields(schema, named) if f["name"] in ("after", "before")]
        columns = images[-1] if images else {}
    hints = {f["name"]: _avro_hint(f["type"], named) for f in _avro_fields(columns, named)}
    return {name: hint for name, hint in hints.items() if hint != NO_HINT}


def avro_columns(schema: Schema, envelope: bool) -> Columns:
    """Give the columns that an Avro writer schema has, with their types."""
    named = dict(_named(schema))
    fields = _avro_fields(schema, named)
    if envelope:
        images = [f["type"] for f in fields if f["name"] == "after"]
        fields = _avro_fields(images[0], named) if images else []
    return {str(f["name"]): _avro_type(f["type"], named) for f in fields}


def _avro_type(schema: Schema, named: dict[str, Schema]) -> str | None:
    """Give the type of an Avro schema by what Connect would call it."""
    found = _resolved(schema, named)
    if isinstance(found, dict) and isinstance(found.get("type"), dict):
        found = found["type"]
    if not isinstance(found, dict):
        return connect_type({"type": found})
    if found.get("type") == "array":
        inner = _avro_type(found.get("items"), named)
        return f"{inner}[]" if inner and not inner.endswith("[]") else None
    name, parameters = found.get("connect.name"), dict(found.get("connect.parameters") or {})
    if found.get("logicalType") == "decimal":
        name = DECIMAL
        parameters = {"scale": found.get("scale", 0), "connect.decimal.precision": found.get("precision")}
    return (None if name else LOGICAL.get(str(found.get("logicalType")))) or connect_type(
        {"type": found.get("connect.type", found.get("type")), "name": name, "parameters": parameters}
    )


def _avro_fields(schema: Schema, named: dict[str, Schema]) -> list[dict[str, Any]]:
    found = _resolved(schema, named)
    fields = found.get("fields") if isinstance(found, dict) else None
    return fields if isinstance(fields, list) else []


def _avro_hint(schema: Schema, named: dict[str, Schema]) -> Hint:
    found = _resolved(schema, named)
    if not isinstance(found, dict):
        return NO_HINT
    if found.get("type") == "array":
        return _avro_hint(found.get("items"), named)
    if isinstance(found.get("type"), dict):
        return _avro_hint(found["type"], named)
    unit = UNITS.get(str(found.get("connect.name"))) or UNITS.get(str(found.get("logicalType")))
    decimal = found.get("logicalType") == "decimal" or str(found.get("connect.name")).endswith(".Decimal")
    return Hint(unit, _whole(found.get("scale", 0)) if decimal else None)


def _resolved(schema: Schema, named: dict[str, Schema]) -> Schema:
    """Follow a union to its first branch that is not null, and a name to its definition."""
    if isinstance(schema, list):
        branches = [s for s in schema if s != "null"]
        return _resolved(branches[0], named) if branches else None
    return named.get(schema, schema) if isinstance(schema, str) else schema


def _named(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Give every named type of an Avro schema, by its short and (where it says so) its full name."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _named(branch)
    elif isinstance(schema, dict):
        if schema.get("type") in ("record", "enum", "fixed") and "name" in schema:
            yield str(schema["name"]), schema
            if "namespace" in schema:
                yield f"{schema['namespace']}.{schema['name']}", schema
        for part in ("type", "items", "values"):
            yield from _named(schema.get(part))
        for field in schema.get("fields") or []:
            yield from _named(field.get("type"))


def _whole(value: object) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None

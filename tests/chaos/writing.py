"""Writes change events as Debezium does, in each encoding, vectorised: JSON, JSON with its schema, and Avro."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tests.chaos.records import Longs, join, text

Flags = npt.NDArray[np.bool_]
PLACEHOLDER = "__debezium_unavailable_value"
KEY_SCHEMA, VALUE_SCHEMA = 1, 2  # ids in the registry


@dataclass(frozen=True)
class Rows:
    """Changes as columns; of a delete only the key is true."""

    id: Longs
    cents: Longs
    note: pa.Array
    op: pa.Array
    deleted: Flags
    position: Longs
    committed: Longs  # position of the commit before
    time: Longs  # ms

    @property
    def sequence(self) -> pa.Array:
        """Give source.sequence, without quotes around it."""
        return join('["', text(self.committed), '","', text(self.position), '"]')


def in_json(rows: Rows) -> tuple[pa.Array, pa.Array]:
    """Give keys and values in schemaless JSON."""
    keys, values = _json(rows)
    return keys.cast(pa.binary()), values.cast(pa.binary())


def in_json_with_schema(rows: Rows) -> tuple[pa.Array, pa.Array]:
    """Give keys and values in Kafka Connect's JSON, each with its schema."""
    keys, values = _json(rows)
    key = json.dumps(_connect_struct("Key", [("id", "int64", False)]))
    value = json.dumps(CONNECT)
    return (
        join(f'{{"schema":{key},"payload":', keys, "}").cast(pa.binary()),
        join(f'{{"schema":{value},"payload":', values, "}").cast(pa.binary()),
    )


def in_avro(rows: Rows) -> tuple[pa.Array, pa.Array]:
    """Give keys and values in Avro, framed as the Confluent serializer does."""
    row = _bytes(_long(rows.id), _long(rows.cents), b"\x02", _string(rows.note))
    fake = _bytes(_long(rows.id), _long(rows.cents * 0), b"\x02", _string(pa.array([""] * len(row))))
    deleted = pa.array(rows.deleted)
    images = pc.if_else(deleted, _bytes(b"\x02", fake, b"\x00"), _bytes(b"\x00\x02", row))
    constants = b"".join(_said(part) for part in ("3.7.0.Final", "postgresql", "chaos"))
    source = _bytes(
        pa.scalar(constants), _long(rows.time), pa.scalar(_said("false") + _said("shop")), b"\x02",
        _string(rows.sequence), pa.scalar(_said("public") + _said("payments")), b"\x02", _long(rows.position),
        b"\x02", _long(rows.position),
    )  # fmt: skip
    values = _bytes(pa.scalar(_framed(VALUE_SCHEMA)), images, source, _string(rows.op), b"\x02", _long(rows.time))
    return _bytes(pa.scalar(_framed(KEY_SCHEMA)), _long(rows.id)), values


# Encoding, as a contract names it -> how it is written.
WRITERS: Mapping[str, Callable[[Rows], tuple[pa.Array, pa.Array]]] = {
    "json": in_json,
    "json-schema": in_json_with_schema,
    "avro": in_avro,
}


def _json(rows: Rows) -> tuple[pa.Array, pa.Array]:
    ident, position, time = text(rows.id), text(rows.position), text(rows.time)
    row = join('{"id":', ident, ',"cents":', text(rows.cents), ',"note":"', rows.note, '"}')
    fake = join('{"id":', ident, ',"cents":0,"note":""}')
    deleted = pa.array(rows.deleted)
    source = join(
        '{"version":"3.7.0.Final","connector":"postgresql","name":"chaos","ts_ms":', time,
        ',"snapshot":"false","db":"shop","sequence":"', pc.replace_substring(rows.sequence, '"', '\\"'),
        '","schema":"public","table":"payments","txId":', position, ',"lsn":', position, "}",
    )  # fmt: skip
    values = join(
        '{"before":', pc.if_else(deleted, fake, "null"), ',"after":', pc.if_else(deleted, "null", row),
        ',"source":', source, ',"op":"', rows.op, '","ts_ms":', time, "}",
    )  # fmt: skip
    return join('{"id":', ident, "}"), values


# --- the schemas

ROW = [("id", "int64", False), ("cents", "int64", False), ("note", "string", True)]
SOURCE = [
    *((name, "string", False) for name in ("version", "connector", "name")), ("ts_ms", "int64", False),
    ("snapshot", "string", False), ("db", "string", False), ("sequence", "string", True), ("schema", "string", False),
    ("table", "string", False), ("txId", "int64", True), ("lsn", "int64", True),
]  # fmt: skip


def _connect_struct(name: str, fields: list[tuple[str, str, bool]]) -> dict[str, Any]:
    described = [{"type": kind, "optional": optional, "field": field} for field, kind, optional in fields]
    return {"type": "struct", "fields": described, "optional": False, "name": f"chaos.public.payments.{name}"}


CONNECT = {
    "type": "struct",
    "fields": [
        {**_connect_struct("Value", ROW), "optional": True, "field": "before"},
        {**_connect_struct("Value", ROW), "optional": True, "field": "after"},
        {**_connect_struct("Source", SOURCE), "name": "io.debezium.connector.postgresql.Source", "field": "source"},
        {"type": "string", "optional": False, "field": "op"},
        {"type": "int64", "optional": True, "field": "ts_ms"},
    ],
    "optional": False,
    "name": "chaos.public.payments.Envelope",
}


def _avro_record(name: str, fields: list[tuple[str, str, bool]]) -> dict[str, Any]:
    kinds = {"int64": "long", "string": "string"}
    described = [
        {"name": field, "type": ["null", kinds[kind]], "default": None}
        if optional
        else {"name": field, "type": kinds[kind]}
        for field, kind, optional in fields
    ]
    return {"type": "record", "name": name, "fields": described}


def avro_schemas() -> dict[int, str]:
    """Give the schemas by id, as the registry must hold them."""
    key = {**_avro_record("Key", ROW[:1]), "namespace": "chaos.public.payments"}
    source = {**_avro_record("Source", SOURCE), "namespace": "io.debezium.connector.postgresql"}
    envelope = {
        "type": "record",
        "name": "Envelope",
        "namespace": "chaos.public.payments",
        "fields": [
            {"name": "before", "type": ["null", _avro_record("Value", ROW)], "default": None},
            {"name": "after", "type": ["null", "Value"], "default": None},
            {"name": "source", "type": source},
            {"name": "op", "type": "string"},
            {"name": "ts_ms", "type": ["null", "long"], "default": None},
        ],
    }
    return {KEY_SCHEMA: json.dumps(key), VALUE_SCHEMA: json.dumps(envelope)}


# --- Avro's bytes


def _framed(schema: int) -> bytes:
    return b"\x00" + schema.to_bytes(4, "big")


def _bytes(*parts: Any) -> pa.BinaryArray:
    return pc.binary_join_element_wise(*parts, b"")


def _said(word: str) -> bytes:
    return bytes([len(word) * 2]) + word.encode()


def _string(texts: pa.Array) -> pa.Array:
    return _bytes(_long(pc.binary_length(texts).cast(pa.int64()).to_numpy()), texts.cast(pa.binary()))


def _long(numbers: Longs) -> pa.Array:
    """Give numbers as zigzag varints."""
    zigzag = ((numbers << 1) ^ (numbers >> 63)).astype(np.uint64)
    shifted = zigzag[:, None] >> (np.arange(10, dtype=np.uint64) * np.uint64(7))
    length = np.maximum((shifted > 0).sum(axis=1), 1)
    inner = np.arange(10)[None, :] < length[:, None]
    more = np.arange(10)[None, :] < length[:, None] - 1
    digits = ((shifted & np.uint64(0x7F)) | np.where(more, np.uint64(0x80), np.uint64(0))).astype(np.uint8)
    offsets = np.concatenate(([0], np.cumsum(length))).astype(np.int32)
    return pa.Array.from_buffers(
        pa.binary(), len(numbers), [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(digits[inner]))]
    )

"""Raw batches and contracts made by hand, for the cases the corpus does not hold."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from typing import Any

import fastavro
import pyarrow as pa

from contracts.columns import RECORDS
from contracts.model import Contract, Encoding, Envelope, Field
from contracts.types import parse_type
from udfs.changes import UnknownSchema


def raw(values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None, **headers: bytes) -> pa.Table:
    """Give a raw batch (RECORDS) of values at consecutive offsets; headers are those of every record."""
    count = len(values)
    return pa.table(
        {
            "topic": ["shop.t"] * count,
            "partition": [0] * count,
            "offset": list(range(count)),
            "timestamp": [1_700_000_000_000] * count,
            "key": list(keys) if keys else [None] * count,
            "value": list(values),
            "old_key": [headers.get("old_key")] * count,
            "new_key": [headers.get("new_key")] * count,
        },
        schema=RECORDS,
    )


def contract(
    columns: dict[str, str],
    encoding: Encoding = Encoding.JSON,
    envelope: Envelope = Envelope.DEBEZIUM,
    units: dict[str, str] | None = None,
    **settings: Any,
) -> Contract:
    """Give a contract with columns declared as name -> type; `id` is the key where there is one."""
    fields = tuple(
        Field(n, n, parse_type(t), key_position=1 if n == "id" else None, time_unit=(units or {}).get(n))
        for n, t in columns.items()
    )
    return Contract("t", "1.0.0", "t.yaml", encoding, envelope, fields, topics=("shop.t",), **settings)


def source(lsn: int = 100) -> dict[str, Any]:
    """Give a `source` block as Debezium PostgreSQL writes it."""
    return {
        "version": "3.7.0.Final",
        "connector": "postgresql",
        "name": "shop",
        "ts_ms": 1_700_000_000_000,
        "snapshot": "false",
        "db": "shop",
        "sequence": f'["{lsn}","{lsn + 1}"]',
        "ts_us": 1_700_000_000_000_001,
        "ts_ns": 1_700_000_000_000_001_000,
        "schema": "public",
        "table": "t",
        "txId": 7,
        "lsn": lsn + 1,
        "xmin": None,
        "origin": None,
        "origin_lsn": None,
    }


def change(after: Any, op: str = "c", before: Any = None, lsn: int = 100) -> dict[str, Any]:
    """Give a Debezium change event."""
    times = {"ts_ms": 1_700_000_000_005, "ts_us": 1_700_000_000_005_001, "ts_ns": 1_700_000_000_005_001_000}
    return {"before": before, "after": after, "source": source(lsn), "transaction": None, "op": op, **times}


def text(value: Any) -> bytes:
    """Give a value as Connect's JSON converter writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def event(after: Any, op: str = "c", before: Any = None, lsn: int = 100) -> bytes:
    """Give a Debezium change event as JSON."""
    return text(change(after, op, before, lsn))


def envelope_schema(columns: list[dict[str, Any]]) -> dict[str, Any]:
    """Give the Avro schema of a Debezium change event whose rows have these Avro fields."""
    long = ["null", "long"]
    own = [
        *({"name": n, "type": "string"} for n in ("version", "connector", "name")),
        {"name": "ts_ms", "type": "long"},
        {"name": "snapshot", "type": ["string", "null"]},
        {"name": "db", "type": "string"},
        {"name": "sequence", "type": ["null", "string"]},
        *({"name": n, "type": long} for n in ("ts_us", "ts_ns")),
        *({"name": n, "type": "string"} for n in ("schema", "table")),
        *({"name": n, "type": long} for n in ("txId", "lsn", "xmin")),
        {"name": "origin", "type": ["null", "string"]},
        {"name": "origin_lsn", "type": long},
    ]
    return {
        "type": "record",
        "name": "Envelope",
        "namespace": "shop.t",
        "fields": [
            {"name": "before", "type": ["null", {"type": "record", "name": "Value", "fields": columns}]},
            {"name": "after", "type": ["null", "Value"]},
            {"name": "source", "type": {"type": "record", "name": "Source", "fields": own}},
            {"name": "transaction", "type": ["null", "string"]},
            {"name": "op", "type": "string"},
            *({"name": n, "type": long} for n in ("ts_ms", "ts_us", "ts_ns")),
        ],
    }


class Registry:
    """Writer schemas by id; framed datums of them."""

    def __init__(self, schemas: dict[int, dict[str, Any]]) -> None:
        self.schemas = schemas
        self.asked: list[int] = []

    def __call__(self, schema_id: int) -> str:
        """Give a schema's text; raises UnknownSchema."""
        self.asked.append(schema_id)
        if schema_id not in self.schemas:
            raise UnknownSchema(schema_id)
        return json.dumps(self.schemas[schema_id])

    def framed(self, schema_id: int, record: Any) -> bytes:
        """Give a record as Confluent-framed Avro."""
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(self.schemas[schema_id]))), record)
        return b"\0" + struct.pack(">I", schema_id) + out.getvalue()

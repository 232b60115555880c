"""The benchmark's records as Debezium writes them with the Avro converter: Confluent framing, then the datum."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tests.bench import avro_binary as avro
from tests.bench.as_json import JsonRecords
from tests.bench.records import Records, digits, instants, join, unscaled

NULL, SECOND = b"\x00", b"\x02"  # branches of a union; null stands first nearly everywhere


def _optional(kind: Any) -> list[Any]:
    return ["null", kind]


def _named(kind: str, name: str, /, **more: Any) -> dict[str, Any]:
    return {"type": kind, "connect.version": 1, "connect.name": name, **more}


def _record(name: str, /, **fields: Any) -> dict[str, Any]:
    made = [{"name": n, "type": t} | ({"default": None} if isinstance(t, list) else {}) for n, t in fields.items()]
    return {"type": "record", "name": name, "fields": made}


_DECIMAL = _named("bytes", "org.apache.kafka.connect.data.Decimal", scale=2, precision=12, logicalType="decimal")
_ROW = _record(
    "Value",
    id="long",
    email="string",
    phone=_optional("string"),
    status="string",
    balance=_DECIMAL,
    notes=_optional("string"),
    created_at=_named("string", "io.debezium.time.ZonedTimestamp"),
)
_SOURCE = _record(
    "Source",
    version="string", connector="string", name="string", ts_ms="long", snapshot=_optional("string"), db="string",
    sequence=_optional("string"), schema="string", table="string", txId=_optional("long"), lsn=_optional("long"),
    xmin=_optional("long"),
) | {"namespace": "io.debezium.connector.postgresql"}  # fmt: skip
_BLOCK = _record("block", id="string", total_order="long", data_collection_order="long") | {"namespace": "event"}

KEY_SCHEMA = json.dumps(_record("Key", id="long") | {"namespace": "bench.customers"})
VALUE_SCHEMA = json.dumps(
    _record(
        "Envelope",
        before=_optional(_ROW), after=_optional("Value"), source=_SOURCE, op="string", ts_ms=_optional("long"),
        transaction=_optional(_BLOCK),
    ) | {"namespace": "bench.customers"}
)  # fmt: skip


@dataclass(frozen=True)
class AvroRecords:
    """Keys and values of records as framed Avro."""

    records: Records
    key_schema_id: int = 1
    value_schema_id: int = 2

    def keys(self) -> pa.BinaryArray:
        """Give the keys."""
        return join(_frame(self.key_schema_id), avro.longs(self.records.ident))

    def values(self) -> pa.BinaryArray:
        """Give the values."""
        images = pc.if_else(self.records.deleted, join(SECOND, self._fake(), NULL), join(NULL, SECOND, self._row()))
        return join(_frame(self.value_schema_id), images, self._rest())

    def _row(self) -> pa.Array:
        r = self.records
        notes = pc.fill_null(JsonRecords(r).notes, "")  # a delete's row is made, and thrown away
        return join(
            avro.longs(r.ident), avro.texts(r.email), SECOND, avro.texts(r.phone), avro.texts(r.status),
            avro.texts(unscaled(r.cents)), SECOND, avro.texts(notes),
            avro.texts(instants(r.created_us)),
        )  # fmt: skip

    def _fake(self) -> pa.Array:
        empty, zero = avro.text(""), avro.text(b"\x00")
        since = avro.text("1970-01-01T00:00:00.000000Z")
        return join(avro.longs(self.records.ident), empty + NULL + empty + zero + NULL + since)

    def _rest(self) -> pa.Array:
        r = self.records
        names = avro.text("2.4.2.Final") + avro.text("postgresql") + avro.text("bench")
        place = SECOND + avro.text("false") + avro.text("shop") + SECOND
        sequence = avro.texts(join('["', digits(r.lsn - 8), '","', digits(r.lsn), '"]'))
        table = avro.text("public") + avro.text("customers") + SECOND
        return join(
            names, avro.longs(r.committed_ms), place, sequence, table, avro.longs(r.number + 1_000_000),
            SECOND, avro.longs(r.lsn), NULL, avro.texts(r.op), SECOND, avro.longs(r.committed_ms + 412), NULL,
        )  # fmt: skip


def _frame(schema_id: int) -> bytes:
    return b"\x00" + schema_id.to_bytes(4, "big")

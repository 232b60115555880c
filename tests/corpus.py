"""The packed corpus: real Debezium output in three encodings, its schemas, and the tables as PostgreSQL held them."""

from __future__ import annotations

import base64
import json
import zipfile
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from contracts.columns import RECORDS

ARCHIVE = Path(__file__).parent / "data" / "corpus.zip"
PREFIXES = {"json": "cdcj", "json-schema": "cdcs", "avro": "cdca"}
MESSAGES = 909  # in each encoding
OLD_KEY, NEW_KEY = "__debezium.oldkey", "__debezium.newkey"

Message = dict[str, Any]  # topic, partition, offset, timestamp (ms), key, value, headers [(name, bytes)]


def topics(encoding: str) -> list[str]:
    """Give the names of an encoding's topics, sorted."""
    folder = f"{encoding}/"
    return sorted(n.removeprefix(folder).removesuffix(".jsonl") for n in _names() if n.startswith(folder))


def topic(encoding: str, table: str) -> str:
    """Give the topic of a table (`users`) or of another kind of message (`transaction`, `message`, `heartbeat`)."""
    prefix = PREFIXES[encoding]
    special = {"heartbeat": f"__debezium-heartbeat.{prefix}"}
    names = (special.get(table), f"{prefix}.public.{table.replace(' ', '_')}", f"{prefix}.{table}", table)
    return next(name for name in names if name in topics(encoding))


def lines(encoding: str, table: str) -> bytes:
    """Give a topic's messages as the corpus holds them: JSON lines, as `load` reads them."""
    return _read(f"{encoding}/{topic(encoding, table)}.jsonl")


def messages(encoding: str, table: str) -> list[Message]:
    """Give a topic's messages in order of partition and offset, keys and values decoded to bytes."""
    found = [_message(json.loads(line)) for line in lines(encoding, table).splitlines()]
    return sorted(found, key=lambda m: (m["partition"], m["offset"]))


def records(encoding: str, table: str) -> pa.Table:
    """Give a topic's messages as the Flink source hands them to refine (contracts.columns.RECORDS)."""
    found = messages(encoding, table)
    headers = [dict(m["headers"]) for m in found]
    columns = {name: [m[name] for m in found] for name in ("topic", "partition", "offset", "timestamp", "key", "value")}
    columns["old_key"] = [h.get(OLD_KEY) for h in headers]
    columns["new_key"] = [h.get(NEW_KEY) for h in headers]
    return pa.table(columns, schema=RECORDS)


def schema(schema_id: int) -> str:
    """Give the Avro writer schema (JSON text) of an id; raises KeyError when the corpus has none."""
    return _read(f"schemas/{schema_id}.avsc").decode()


def schema_ids() -> list[int]:
    """Give the ids of all writer schemas, sorted."""
    return sorted(int(Path(name).stem) for name in _names() if name.startswith("schemas/"))


def expected(table: str) -> list[dict[str, Any]]:
    """Give a table's rows as PostgreSQL held them at the end; numbers with a fraction are Decimal."""
    name = next(n for n in (f"expected/{table}.jsonl", f"expected/{table.replace('_', ' ')}.jsonl") if n in _names())
    return [json.loads(line, parse_float=Decimal) for line in _read(name).splitlines() if line.strip()]


def workload(name: str) -> str:
    """Give one of the SQL files that made the corpus, such as `10_dml.sql`."""
    return _read(f"workload/{name}").decode()


def _message(line: Message) -> Message:
    return {
        "topic": line["topic"],
        "partition": line["partition"],
        "offset": line["offset"],
        "timestamp": line["timestamp"],
        "key": _bytes(line["key_b64"]),
        "value": _bytes(line["value_b64"]),
        "headers": [(name, _bytes(value)) for name, value in line["headers"]],
    }


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


@cache
def _archive() -> zipfile.ZipFile:
    return zipfile.ZipFile(ARCHIVE)


@cache
def _names() -> frozenset[str]:
    return frozenset(_archive().namelist())


@cache
def _read(name: str) -> bytes:
    return _archive().read(name)

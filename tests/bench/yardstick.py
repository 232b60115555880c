"""The yardstick: what a careful engineer would write by hand in one process, with the same rules, masks and tables.

confluent-kafka hands over batches, orjson (or fastavro) reads record by record, plain Python checks and masks, and
deltalake appends every few seconds with the offsets as txn actions in the same commit.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import re
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol, cast

import fastavro
import orjson
import pyarrow as pa
import pyarrow.compute
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from contracts.model import Encoding
from tests.bench.as_avro import VALUE_SCHEMA
from tests.bench.contract import KEY_ID, keys

FETCH = 10_000  # records asked for at once
COMMIT_SECONDS = 5.0
SKEW_MS = 300_000
STATES = frozenset({"new", "active", "blocked"})
ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
DOMAIN = re.compile(r"[a-z0-9.-]+")
UTC_MICROS = pa.timestamp("us", "UTC")

ROWS = pa.schema(
    [
        ("id", pa.int64()), ("email", pa.string()), ("phone", pa.string()), ("status", pa.string()),
        ("balance", pa.decimal128(38, 2)), ("created_at", UTC_MICROS), ("_op", pa.string()),
        ("_position_major", pa.int64()), ("_position_minor", pa.int64()), ("_event_time", UTC_MICROS),
        ("_tx_id", pa.int64()), ("_violations", pa.list_(pa.string())), ("_topic", pa.string()),
        ("_partition", pa.int32()), ("_offset", pa.int64()), ("_kafka_time", UTC_MICROS), ("_ingested_at", UTC_MICROS),
    ]
)  # fmt: skip
REJECTS = pa.schema(
    [
        ("_rules", pa.list_(pa.string())), ("_reason", pa.string()), ("_topic", pa.string()),
        ("_partition", pa.int32()), ("_offset", pa.int64()), ("_kafka_time", UTC_MICROS),
    ]
)  # fmt: skip


class Message(Protocol):
    """A record as confluent-kafka gives it."""

    def value(self) -> bytes | None: ...
    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def timestamp(self) -> tuple[int, int]: ...


Decode = Callable[[bytes], dict[str, Any]]


def decoder(encoding: Encoding) -> Decode:
    """Give the function that reads one value."""
    if encoding is Encoding.JSON:
        return orjson.loads
    # Decimals stay bytes here, as they do in JSON: one conversion for both.
    schema: Any = fastavro.parse_schema(
        json.loads(VALUE_SCHEMA.replace('"logicalType": "decimal"', '"was": "decimal"'))
    )

    def read(value: bytes) -> dict[str, Any]:
        found = cast(dict[str, Any], fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None))
        return found

    return read


@dataclass
class Yardstick:
    """Turns messages into rows and rejects, and appends them."""

    lake: str  # local folder
    decode: Decode
    merge: bool = False  # keep a table of current rows as well
    rows: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in ROWS.names})
    rejects: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in REJECTS.names})
    progress: dict[tuple[str, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # HMAC with its key block hashed once: the quickest way the standard library offers.
        secret = keys().subkey(KEY_ID, "email_hash").hex().encode()
        self._hmac = hmac.new(secret, digestmod=hashlib.sha256)

    def take(self, messages: Sequence[Message]) -> None:
        """Decode, check and mask a batch of messages."""
        now_ms = int(time.time() * 1000)
        for message in messages:
            value, topic, partition, offset = message.value(), message.topic(), message.partition(), message.offset()
            time_ms = message.timestamp()[1]
            self.progress[topic, partition] = offset
            if value is None:  # a tombstone
                continue
            try:
                change = self.decode(value)
                row = self._row(change)
            except (ValueError, KeyError, TypeError, EOFError, struct.error):
                self._reject(["undecodable"], topic, partition, offset, time_ms)
                continue
            broken, warned = _broken(row, change["op"], now_ms)
            if broken:
                self._reject(broken, topic, partition, offset, time_ms)
                continue
            self._keep(row, change, warned, topic, partition, offset, time_ms, now_ms)

    def _row(self, change: dict[str, Any]) -> dict[str, Any]:
        if change["op"] == "d":  # without full identity only the key of `before` is true
            return {"id": change["before"]["id"], "email": None, "phone": None, "status": None,
                    "balance": None, "created_at": None}  # fmt: skip
        row: dict[str, Any] = change["after"]
        raw = row["balance"]
        data = base64.b64decode(raw) if isinstance(raw, str) else raw
        row["balance"] = Decimal(int.from_bytes(data, "big", signed=True)).scaleb(-2)
        row["created_at"] = datetime.fromisoformat(row["created_at"])
        return row

    def _keep(
        self, row: dict[str, Any], change: dict[str, Any], warned: list[str] | None,
        topic: str, partition: int, offset: int, time_ms: int, now_ms: int,
    ) -> None:  # fmt: skip
        source = change["source"]
        major, minor = orjson.loads(source["sequence"])
        rows = self.rows
        rows["id"].append(row["id"])
        rows["email"].append(self._hashed(row["email"]))
        rows["phone"].append(_last_four(row["phone"]))
        rows["status"].append(row["status"])
        rows["balance"].append(row["balance"])
        rows["created_at"].append(row["created_at"])
        rows["_op"].append(change["op"])
        rows["_position_major"].append(int(major) if major is not None else None)
        rows["_position_minor"].append(int(minor))
        rows["_event_time"].append(source["ts_ms"] * 1000)
        rows["_tx_id"].append(source["txId"])
        rows["_violations"].append(warned)
        rows["_topic"].append(topic)
        rows["_partition"].append(partition)
        rows["_offset"].append(offset)
        rows["_kafka_time"].append(time_ms * 1000)
        rows["_ingested_at"].append(now_ms * 1000)

    def _hashed(self, email: str | None) -> str | None:
        if email is None:
            return None
        address = email.strip().lower()
        state = self._hmac.copy()
        state.update(address.encode())
        local, at, domain = address.rpartition("@")
        kept = f"@{domain}" if local and at and DOMAIN.fullmatch(domain) else ""
        return state.hexdigest()[:32] + kept

    def _reject(self, rules: list[str], topic: str, partition: int, offset: int, time_ms: int) -> None:
        rejects = self.rejects
        rejects["_rules"].append(rules)
        rejects["_reason"].append(f"breaks {', '.join(rules)}")
        rejects["_topic"].append(topic)
        rejects["_partition"].append(partition)
        rejects["_offset"].append(offset)
        rejects["_kafka_time"].append(time_ms * 1000)

    def commit(self) -> None:
        """Append what has been gathered, rejects first, each with the offsets in the same commit."""
        for name, columns, schema in (("quarantine", self.rejects, REJECTS), ("changes", self.rows, ROWS)):
            if columns["_offset"] or name == "changes":
                progress = [Transaction(f"yardstick/{topic}/{p}", last) for (topic, p), last in self.progress.items()]
                table = pa.table(columns, schema=schema)
                done = CommitProperties(app_transactions=progress)
                write_deltalake(f"{self.lake}/{name}", table, mode="append", commit_properties=done)
                if self.merge and name == "changes":
                    merge_current(f"{self.lake}/current", table, done)
            for column in columns.values():
                column.clear()


def _broken(row: Mapping[str, Any], op: str, now_ms: int) -> tuple[list[str], list[str] | None]:
    """Give the rules that reject a row, and those that only warn; deletes are tested for their key only."""
    broken = [] if row["id"] is not None else ["key_present"]
    if op == "d":
        return broken, None
    email, balance, created = row["email"], row["balance"], row["created_at"]
    if email is None:
        broken.append("email_required")
    elif not ADDRESS.fullmatch(email):
        broken.append("email_pattern")
    if balance is not None and balance < 0:
        broken.append("balance_minimum")
    if created is not None and created.timestamp() * 1000 > now_ms + SKEW_MS:
        broken.append("created_at_not_in_future")
    status = row["status"]
    return broken, ["status_known"] if status is not None and status not in STATES else None


def _last_four(phone: str | None) -> str | None:
    if phone is None:
        return None
    return "*" * (len(phone) - 4) + phone[-4:] if len(phone) > 4 else "*" * len(phone)


def merge_current(path: str, changes: pa.Table, done: CommitProperties) -> None:
    """Merge the newest change of each key into the current rows."""
    newest = changes.sort_by([("_position_major", "ascending"), ("_position_minor", "ascending")])
    last = newest.append_column("n", pa.array(range(len(newest)))).group_by("id").aggregate([("n", "max")])
    rows = newest.take(last["n_max"])
    if not DeltaTable.is_deltatable(path):
        write_deltalake(path, rows.schema.empty_table())
    merging = DeltaTable(path).merge(rows, "t.id = s.id", source_alias="s", target_alias="t", commit_properties=done)
    gone = "s._op = 'd'"
    merging = merging.when_matched_delete(gone).when_matched_update_all(
        "s._position_major > t._position_major OR (s._position_major = t._position_major AND "
        "s._position_minor > t._position_minor)"
    )
    merging.when_not_matched_insert_all(f"NOT ({gone})").execute()


def fill(lake: str, keys: int) -> None:
    """Fill the table of current rows with one row a key."""
    for low in range(0, keys, 2_000_000):
        ids = pa.array(range(low, min(keys, low + 2_000_000)))
        columns = [_filled(field, ids) for field in ROWS]
        write_deltalake(f"{lake}/current", pa.Table.from_arrays(columns, schema=ROWS), mode="append")


def _filled(field: pa.Field, ids: pa.Array) -> pa.Array:
    if pa.types.is_integer(field.type):
        return (ids if field.name == "id" else pa.repeat(1, len(ids))).cast(field.type)
    if pa.types.is_string(field.type):
        return pa.compute.binary_join_element_wise(ids.cast(pa.string()), field.name, "@")
    return pa.nulls(len(ids), field.type)


def run(  # noqa: PLR0917 (one call of the benchmark)
    kafka: str, topics: Sequence[str], encoding: Encoding, lake: str, records: int, merge: bool = False
) -> float:
    """Consume so many records into tables, and give the rate (records/s) from the first record to the last commit."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka, "group.id": f"yardstick-{time.time_ns()}", "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "isolation.level": "read_committed",
            "queued.max.messages.kbytes": 256 * 1024, "fetch.message.max.bytes": 8 * 1024 * 1024,
        }
    )  # fmt: skip
    consumer.assign(_partitions(consumer, topics))
    yardstick, done = Yardstick(lake, decoder(encoding), merge), 1
    first = consumer.consume(1, 60)
    started = committed = time.monotonic()
    yardstick.take(cast(Sequence[Message], first))
    while done < records:
        messages = consumer.consume(min(FETCH, records - done), 1.0)
        yardstick.take(cast(Sequence[Message], messages))
        done += len(messages)
        if time.monotonic() - committed >= COMMIT_SECONDS:
            yardstick.commit()
            committed = time.monotonic()
    yardstick.commit()
    seconds = time.monotonic() - started
    consumer.close()
    return records / seconds


def _partitions(consumer: Consumer, topics: Sequence[str]) -> list[TopicPartition]:
    known = consumer.list_topics().topics
    return [TopicPartition(topic, number, OFFSET_BEGINNING) for topic in topics for number in known[topic].partitions]

"""Sections made up for tests: a small stream whose rows can be told apart by topic, partition and offset."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from contracts.columns import OTHERS, QUARANTINE, WITHHELD_META, refined_schema, withheld_schema
from contracts.model import Contract, Encoding, Envelope, Field, Mask
from contracts.types import parse_type
from lakehouse.commit import StreamTables
from lakehouse.lake import Lake
from lakehouse.segments import Range, Section, SectionRef, write_segment

NOW = 1_800_000_000_000  # ms
START = 1_700_000_000_000  # ms: the event time of offset 0

CONTRACT = Contract(
    stream="orders",
    version="1.0.0",
    file="orders.odcs.yaml",
    encoding=Encoding.JSON,
    envelope=Envelope.DEBEZIUM,
    topics=("shop.orders",),
    fields=(
        Field("id", "id", parse_type("bigint"), key_position=1),
        Field("email", "email", parse_type("text"), private=True, mask=Mask("hash", key_id="k1")),
        Field("amount", "amount", parse_type("numeric(12,2)")),
        Field("note", "note", parse_type("text")),
    ),
)
TOPIC = "shop.orders"


def contract(**changes: Any) -> Contract:
    return dataclasses.replace(CONTRACT, **changes)


def no_gaps(topic: str, partition: int, after: int, before: int) -> bool:
    return False


def tables(lake: Lake, of: Contract = CONTRACT, **options: Any) -> StreamTables:
    return StreamTables(lake, of, pipeline=options.pop("pipeline", "test"), version="0.0.1", **options)


def row(offset: int, partition: int = 0, topic: str = TOPIC, **values: Any) -> dict[str, Any]:
    """Give an accepted row; event_ms, major, minor and any column can be given."""
    event_ms = values.pop("event_ms", START + offset * 1000)
    made = {
        "id": offset,
        "email": f"token-{partition}-{offset}",
        "_op": "c",
        "_position_major": offset,
        "_position_minor": offset,
        "_event_time": None if event_ms is None else event_ms * 1000,
        "_topic": topic,
        "_partition": partition,
        "_offset": offset,
        "_ingested_at": NOW * 1000,
    }
    return {**made, **values}


def reject(
    offset: int, partition: int = 0, topic: str = TOPIC, rules: Sequence[str] = ("undecodable",)
) -> dict[str, Any]:
    made = {"_stage": "decode", "_rules": list(rules), "_reason": "not JSON", "_ingested_at": NOW * 1000}
    return {**made, "_topic": topic, "_partition": partition, "_offset": offset}


def other(offset: int, partition: int = 0, topic: str = TOPIC, kind: str = "tombstone") -> dict[str, Any]:
    return {"_topic": topic, "_partition": partition, "_offset": offset, "_kind": kind}


def withheld(
    offset: int, partition: int = 0, topic: str = TOPIC, kind: str = "filtered", **values: Any
) -> dict[str, Any]:
    """Give a change that is no row, though its key is known."""
    made = {"id": offset, "_op": "u", "_position_major": offset, "_position_minor": offset, **values}
    return {**made, "_topic": topic, "_partition": partition, "_offset": offset, "_kind": kind}


def section(  # noqa: PLR0917
    rows: Iterable[dict[str, Any]] = (),
    rejects: Iterable[dict[str, Any]] = (),
    others: Iterable[dict[str, Any]] = (),
    prev: dict[tuple[str, int], int] | None = None,
    of: Contract = CONTRACT,
    ranges: Sequence[Range] | None = None,
    withheld: Iterable[dict[str, Any]] = (),
) -> Section:
    """Give a section of any records; its ranges go from the lowest to the highest offset of each partition."""
    made = [_table(rows, refined_schema(of)), _table(rejects, QUARANTINE), _table(others, OTHERS)]
    kept = _table(withheld, withheld_schema(of)) if withheld else WITHHELD_META.empty_table()
    return Section(of.stream, *made, ranges=tuple(ranges or _ranges(made, prev or {})), withheld=kept)


def _table(records: Iterable[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    ordered = sorted(records, key=lambda r: (r["_topic"], r["_partition"], r["_offset"]))
    columns = [_column([record.get(field.name) for record in ordered], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind):
        return pa.array(values, pa.int64()).cast(kind)
    return pa.array(values, kind)


def _ranges(parts: Sequence[pa.Table], prev: dict[tuple[str, int], int]) -> list[Range]:
    found: dict[tuple[str, int], list[int]] = {}
    for table in parts:
        for record in table.select(["_topic", "_partition", "_offset"]).to_pylist():
            found.setdefault((record["_topic"], record["_partition"]), []).append(record["_offset"])
    return [
        Range(topic, number, prev.get((topic, number)), min(offsets), max(offsets), len(offsets))
        for (topic, number), offsets in sorted(found.items())
    ]


def write(lake: Lake, *sections: Section) -> list[SectionRef]:
    return write_segment(lake, uuid.uuid4().hex, sections)


def offsets(lake: Lake, table: str = "orders_changes") -> list[tuple[int, int]]:
    """Give (partition, offset) of every row of a table, sorted."""
    return sorted((partition, offset) for partition, offset in values(lake, "_partition, _offset", table))


def values(lake: Lake, columns: str, table: str = "orders_changes") -> list[tuple[Any, ...]]:
    """Give columns of a table as deltalake reads it, in the order of topic, partition, offset."""
    held = DeltaTable(lake.table_uri(table), storage_options=dict(lake.storage_options)).to_pyarrow_table()
    query = f"SELECT {columns} FROM held ORDER BY _topic, _partition, _offset, _ingested_at"
    return duckdb.connect().register("held", held).execute(query).fetchall()

"""What brings a table to the wanted shape: the actions of its first commit, and of those that widen it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import pyarrow as pa
from deltalake import Field, Schema

from contracts.model import Storage
from lakehouse.merge.actions import commit_info, now_ms
from lakehouse.merge.log import Action, Snapshot
from lakehouse.merge.protocol import ENABLE_VECTORS, protocol_for, vectored, widened
from lakehouse.shape import TableShape, types_of


def creation(shape: TableShape) -> list[Action]:
    """Give the actions of an empty table's first commit."""
    vectors = shape.storage is Storage.MERGE_ON_READ
    metadata = {
        "id": str(uuid.uuid4()),
        "format": {"provider": "parquet", "options": {}},
        "schemaString": Schema.from_arrow(shape.columns).to_json(),
        "partitionColumns": list(shape.partition_by),
        "configuration": {k: v for k, v in _properties(shape, vectors=vectors).items() if v is not None},
        "createdTime": now_ms(),
    }
    info = commit_info("CREATE TABLE", {"mode": "ErrorIfExists"}, None)
    return [info, {"protocol": protocol_for(shape.columns, vectors=vectors)}, {"metaData": metadata}]


def evolution(snapshot: Snapshot, shape: TableShape, added: Sequence[pa.Field]) -> list[Action]:
    """Give the actions that bring a table to the wanted columns and properties; none when it has them."""
    vectors = vectored(snapshot.protocol) and shape.storage is Storage.MERGE_ON_READ
    wanted = _properties(shape, vectors=vectors)
    changed = {k: v for k, v in wanted.items() if v is not None and snapshot.configuration.get(k) != v}
    if not added and not changed:
        return []
    fields = Schema.from_json(snapshot.metadata["schemaString"]).fields
    columns = Schema([*fields, *(Field.from_arrow(column.with_nullable(True)) for column in added)])
    protocol = widened(snapshot.protocol, pa.schema(columns.to_arrow()))
    configuration = {**snapshot.configuration, **changed}
    metadata = {**snapshot.metadata, "schemaString": columns.to_json(), "configuration": configuration}
    return [*([{"protocol": protocol}] if protocol else []), {"metaData": metadata}]


def retyped(before: str, now: str) -> list[str]:
    """Give the columns that have another type in one text of a log's columns than in an earlier one."""
    was, becomes = (types_of(pa.schema(Schema.from_json(text).to_arrow())) for text in (before, now))
    return [name for name, kind in becomes.items() if was.get(name, kind) != kind]


def _properties(shape: TableShape, *, vectors: bool) -> dict[str, str | None]:
    return {**shape.configuration(), **({ENABLE_VECTORS: "true"} if vectors else {})}

"""A made-up source table that gains columns, and what a connector sends of it: JSON with schema."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from contracts.columns import RECORDS
from contracts.model import Contract, Encoding, UnknownFields
from tests.lakehouse.state.source import TOPIC, Row, Source, contract
from udfs.placeholders import PLACEHOLDER

TEXT, NUMBER = "extra", "score"  # columns that a source may gain
KEYS, NUMBERS = ("region", "id"), ("id", "n", NUMBER)


def growing(*, composite: bool = False, lanes: int = 1, **state: Any) -> Contract:
    """Give the contract of a source whose new columns join the tables by themselves."""
    made = contract(composite, lanes=lanes, **state)
    return dataclasses.replace(made, encoding=Encoding.JSON_SCHEMA, unknown_fields=UnknownFields.ADD)


class Growing(Source):
    """A table that columns are added to while it is written; each event says which it had (`_columns`)."""

    def gain(self, name: str) -> None:
        """Add a column, null in all rows that are or were there, and insert a row that shows it."""
        self.columns.append(name)
        if name not in NUMBERS:
            self.toast.append(name)
        for row in (row for versions in self.versions.values() for _, _, row in versions):
            row[name] = None
        self._insert((*["é"] * (len(self.keys) - 1), 1000 + len(self.columns)))

    def _value(self, name: str) -> Any:
        return self.random.choice([None, -1, self.random.randrange(100)]) if name == NUMBER else super()._value(name)

    def _send(self, op: str, row: Row, unset: list[str] | None = None, **meta: Any) -> None:
        super()._send(op, row, unset, **meta, _columns=tuple(self.columns))


def messages(events: Iterable[Row]) -> pa.Table:
    """Give events that have offsets as the records (RECORDS) that a connector sends of them, in their order."""
    return pa.Table.from_pylist([_record(event) for event in events], schema=RECORDS)


def _record(event: Row) -> dict[str, Any]:
    key = {name: event[name] for name in KEYS if name in event}
    bare = key | dict.fromkeys(event["_columns"])
    unset = dict.fromkeys(event["_unset"] or (), PLACEHOLDER)
    payload = {
        "before": bare if event["_op"] == "d" else None,
        "after": None if event["_op"] in "dt" else bare | {name: event.get(name) for name in bare} | unset,
        "source": _source(event),
        "op": event["_op"],
    }
    schema = {"type": "struct", "fields": [{**_struct(bare), "field": image} for image in ("before", "after")]}
    return {
        "topic": TOPIC,
        "partition": event["_partition"],
        "offset": event["_offset"],
        "timestamp": event["_position_minor"],
        "key": None if event["_op"] == "t" else _text(_struct(key), key),
        "value": _text(schema, payload),
        "old_key": _header(event.get("_previous_key")),
        "new_key": _header(event.get("_next_key")),
    }


def _struct(names: Iterable[str]) -> dict[str, Any]:
    fields = [{"field": name, "type": "int64" if name in NUMBERS else "string", "optional": True} for name in names]
    return {"type": "struct", "fields": fields, "optional": True}


def _source(event: Row) -> dict[str, Any]:
    major, minor = event["_position_major"], event["_position_minor"]
    return {"sequence": f'["{major}","{minor}"]', "lsn": minor, "snapshot": "false", "ts_us": event["_source_time"]}


def _text(schema: dict[str, Any], payload: dict[str, Any]) -> bytes:
    return json.dumps({"schema": schema, "payload": payload}, separators=(",", ":"), ensure_ascii=False).encode()


def _header(key: str | None) -> bytes | None:
    return None if key is None else key.encode()

"""Change events and contracts for tests of checks, masks and quarantine, written as plain Python values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from contracts.columns import RECORDS
from contracts.model import Contract, Derived, Encoding, Envelope, Field, Mask
from contracts.types import parse_type
from udfs.changes import META, Changes
from udfs.keys import KeyRing

CASES = Path(__file__).parent / "cases"
NOW_MS = 1_750_000_000_000  # 2025-06-15T15:06:40Z
KEYS = KeyRing({"first": bytes(range(32)), "second": bytes(range(32, 64))})


def field(name: str, declared: str = "text", **rest: Any) -> Field:
    """Give a field of a declared type."""
    return Field(name, rest.pop("source", name), parse_type(declared), **rest)


def derived(name: str, declared: str, sql: str, mask: Mask | None = None) -> Derived:
    """Give a derived column."""
    return Derived(name, parse_type(declared), sql, mask=mask)


def contract(*fields: Field, **rest: Any) -> Contract:
    """Give a contract of fields."""
    return Contract("people", "1.0.0", "people.odcs.yaml", Encoding.JSON, Envelope.DEBEZIUM, fields, ("t",), **rest)


def changes(
    of: Contract,
    rows: Sequence[Mapping[str, Any]],
    unset: Mapping[str, Sequence[bool]] | None = None,
    flags: Mapping[str, Sequence[str | None]] | None = None,
) -> Changes:
    """Give change events (op c unless said) at offsets 0, 1, ... of topic t."""
    schema = pa.schema([*((f.name, f.type.arrow) for f in of.fields), *META])
    table = pa.Table.from_pylist([{**_defaults(i), **row} for i, row in enumerate(rows)], schema)
    return Changes(
        table,
        pa.array(range(len(rows)), pa.int64()),
        {name: pa.array(marks, pa.bool_()) for name, marks in (unset or {}).items()},
        {name: pa.array(reasons, pa.string()) for name, reasons in (flags or {}).items()},
    )


def records(count: int, key: bytes = b"{}", value: bytes = b"{}") -> pa.Table:
    """Give raw records at the same coordinates as `changes`."""
    rows = [
        {"topic": "t", "partition": 0, "offset": i, "timestamp": NOW_MS, "key": key, "value": value}
        for i in range(count)
    ]
    return pa.Table.from_pylist(rows, RECORDS)


def _defaults(offset: int) -> dict[str, Any]:
    return {"_op": "c", "_topic": "t", "_partition": 0, "_offset": offset}

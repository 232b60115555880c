"""The corpus folded to the state of each table, and PostgreSQL's own text brought into the same values."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from contracts.load import load_contract
from contracts.model import Contract
from contracts.types import ColumnType
from tests import corpus
from udfs.changes import Normalised
from udfs.normalise import normalise

ENCODINGS = ("json", "json-schema", "avro")
CONTRACTS = Path(__file__).parents[1] / "data" / "contracts"
TABLES = sorted(t.split(".public.")[1] for t in corpus.topics("json") if ".public." in t)

Row = dict[str, Any]


@cache
def contract(encoding: str, table: str) -> Contract:
    """Give the corpus contract of a table."""
    return load_contract(CONTRACTS / encoding / f"{table.lower().replace(' ', '_')}.odcs.yaml")


@cache
def normalised(encoding: str, table: str) -> Normalised:
    """Give a table's whole topic, normalised as one batch."""
    return normalise(corpus.records(encoding, table), contract(encoding, table), corpus.schema, now_ms=1)


def changes(encoding: str, table: str) -> list[Row]:
    """Give a table's changes as dicts, with the names of unset columns under `_unset`."""
    found = normalised(encoding, table).changes
    rows: list[Row] = found.table.to_pylist()
    for index, row in enumerate(rows):
        row["_unset"] = {name for name, mask in found.unset.items() if mask[index].as_py()}
        row["_flags"] = {name for name, reasons in found.flags.items() if reasons[index].is_valid}
    return rows


def state(encoding: str, table: str) -> dict[tuple[Any, ...], Row]:
    """Fold a table's changes by key in order of position: the highest position wins, a truncate empties."""
    key = [f.name for f in contract(encoding, table).key]
    ever: dict[str, Row] = {}  # every row ever seen, for values that a later change did not send
    rows: dict[tuple[Any, ...], Row] = {}
    # At one position a delete comes before the row that continues it under another key.
    for change in sorted(changes(encoding, table), key=lambda c: (_position(c), c["_op"] != "d")):
        if change["_op"] == "t":
            rows.clear()
            continue
        identity = tuple(change[name] for name in key)
        before = ever.get(change["_previous_key"] or _key_text(change, key), {})
        if change["_op"] == "d":
            rows.pop(identity, None)
            continue
        for name in change["_unset"]:
            change[name] = before.get(name)
        rows[identity] = ever[_key_text(change, key)] = change
    return rows


def _position(change: Row) -> tuple[int, int]:
    return (change["_position_major"] or -1, change["_position_minor"])


def _key_text(change: Row, key: list[str]) -> str:
    return json.dumps({name: change[name] for name in key}, separators=(",", ":"), default=str)


def truth(value: Any, kind: ColumnType) -> Any:
    """Give a value of `expected/` (PostgreSQL's text) as the tables hold it; infinities and odd years are null."""
    if value is None:
        return None
    if kind.element is not None:
        return [truth(v, kind.element) for v in value]
    return TRUTH.get(kind.name, lambda v, k: v)(value, kind)


def _decimal(value: Any, kind: ColumnType) -> Any:
    return None if value in ("NaN", "Infinity") else Decimal(str(value).replace("$", "").replace(",", ""))


def _timestamp(value: str, kind: ColumnType) -> Any:
    if "infinity" in value or "BC" in value or re.match(r"\d{5}", value):
        return None
    found = dt.datetime.fromisoformat(value)
    return found.astimezone(dt.UTC) if found.tzinfo else found


def _date(value: str, kind: ColumnType) -> Any:
    return None if not re.fullmatch(r"\d{4}-\d\d-\d\d", value) else dt.date.fromisoformat(value)


def _timetz(value: str, kind: ColumnType) -> Any:
    text, sign, hours = re.fullmatch(r"([\d:.]+)([+-])(.*)", value).groups()  # type: ignore[union-attr]
    whole = dt.time.fromisoformat(text)
    parts = [int(p) for p in hours.split(":")] + [0]
    shift = dt.timedelta(hours=parts[0], minutes=parts[1]) * (1 if sign == "+" else -1)
    return (dt.datetime.combine(dt.date(2000, 1, 2), whole) - shift).time()


def _point(value: str, kind: ColumnType) -> Any:
    x, y = value.strip("()").split(",")
    return {"x": float(x), "y": float(y)}


TRUTH: dict[str, Callable[[Any, ColumnType], Any]] = {
    "numeric": _decimal,
    "money": _decimal,
    "real": lambda v, k: float(v),
    "double precision": lambda v, k: float(v),
    "bytea": lambda v, k: bytes.fromhex(v.removeprefix("\\x")),
    "date": _date,
    "timestamp": _timestamp,
    "timestamptz": _timestamp,
    "timetz": _timetz,
    "oid": lambda v, k: int(v),
    "point": _point,
}


def held(value: Any, kind: ColumnType) -> Any:
    """Give a stored value in the form that `truth` has."""
    if value is None:
        return None
    if kind.name == "numeric":
        return Decimal(value)
    if kind.name in ("json", "jsonb", "hstore"):
        return json.loads(value, parse_float=Decimal)
    if kind.name == "timetz":
        return dt.time.fromisoformat(value.removesuffix("Z"))
    return value

"""What the corpus must come to: changes folded to the state of each table, PostgreSQL's own text, what may differ."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from contracts.model import Contract, Field
from contracts.types import ColumnType
from tests import corpus
from udfs.names import adjusted

ENCODINGS = ("json", "json-schema", "avro")
TABLES = sorted(t.split(".public.")[1] for t in corpus.topics("json") if ".public." in t)

# Table -> columns that cannot equal the truth, by the number of the fact in the corpus README that says why.
WRONG_AT_SOURCE: dict[str, dict[str, int]] = {
    "defaults": {"b": 2, "c": 2, "d": 2, "f": 2},  # NULL became the column's default
    "num_special": {"dd": 7},  # NaN: 0 when NOT NULL (null otherwise, as the tables hold it)
    "types_torture": {"c_interval": 8},  # microseconds only, months approximated
    "types_more": {"ints2": 9},  # inner arrays are null
    "gen_total": {"total": 13},  # generated columns are absent from the stream
    "orders": {"prio": 19},  # a column added with a default: DDL sends nothing for the rows that are there
}
# Tables whose keys cannot equal the truth.
WRONG_KEYS = {
    "idx_ident": 1,  # REPLICA IDENTITY USING INDEX: deletes name key 0
    "metrics": 12,  # the parent's topic has only the snapshot
}
KEYLESS = {"audit_full", "audit_nopk"}

Row = dict[str, Any]


def wrong(encoding: str, table: str) -> dict[str, int]:
    """Give the columns of a table that cannot equal the truth in this encoding, with the fact that says why."""
    if table == "orders" and encoding == "json":  # schemaless JSON does not say that the scale changed
        return {**WRONG_AT_SOURCE["orders"], "amount": 6}
    return WRONG_AT_SOURCE.get(table, {})


def fold(changes: Iterable[Mapping[str, Any]], key: Sequence[str]) -> dict[tuple[Any, ...], Row]:
    """Fold changes (columns of <stream>_changes) by key in order of position; a truncate empties the table."""
    rows: dict[tuple[Any, ...], Row] = {}
    for identity, _, row in states(changes, key):
        rows.pop(identity, None)
        if row is not None:
            rows[identity] = row
    return rows


def versions(changes: Iterable[Mapping[str, Any]], key: Sequence[str], names: Sequence[str]) -> int:
    """Give how many versions the history of the columns has: a row that was only read once more makes none."""

    def says_again(before: Row, row: Row) -> bool:
        same_change = _position(before) == _position(row) and row["_op"] == before["_op"]
        return same_change or (row["_op"] == "r" and all(repr(before[n]) == repr(row[n]) for n in names))

    told = ((before, row) for _, before, row in states(changes, key) if row is not None)
    return sum(before is None or not says_again(before, row) for before, row in told)


def states(
    changes: Iterable[Mapping[str, Any]], key: Sequence[str]
) -> Iterator[tuple[tuple[Any, ...], Row | None, Row | None]]:
    """Give each key that a change concerns, by position, with its row before and after; None where there is none."""
    ever: dict[str, Row] = {}  # every row ever seen, for values that a later change did not send
    rows: dict[tuple[Any, ...], Row] = {}
    # At one position a delete comes before the row that continues it under another key.
    for change in sorted(changes, key=lambda c: (_position(c), c["_op"] != "d")):
        if change["_op"] == "t":
            yield from ((identity, row, None) for identity, row in rows.items())
            rows.clear()
            continue
        identity = tuple(change[name] for name in key)
        before = rows.pop(identity, None)
        if change["_op"] == "d":
            yield identity, before, None
            continue
        source = ever.get(change["_previous_key"] or _key_text(change, key), {})
        row = {**change, **{name: source.get(name) for name in change["_unset"] or ()}}
        rows[identity] = ever[_key_text(change, key)] = row
        yield identity, before, row


def differing(encoding: str, table: str, contract: Contract, found: Mapping[tuple[Any, ...], Row]) -> set[str]:
    """Give the columns in which a folded table differs from the truth; its keys must be equal (as text: dates)."""
    expected = corpus.expected(table)
    # Fact 22: a column dropped during the workload still stands in older messages, not in the table.
    compared = [f for f in contract.fields if not expected or _name(f, expected[0]) is not None]
    truths = {tuple(str(_expected(row, f)) for f in contract.key): row for row in expected}
    helds = {tuple(str(value) for value in key): row for key, row in found.items()}
    assert set(helds) == set(truths)
    return {
        field.name
        for field in compared
        for key, row in truths.items()
        if plain(held(helds[key][field.name], field.type)) != plain(_expected(row, field))
    }


def comparable(row: Mapping[str, Any], contract: Contract) -> dict[str, str]:
    """Give what must be equal in all encodings; the three connectors took their snapshots at different positions."""
    names = [f.name for f in contract.fields]
    own = {name: repr(row[name]) for name in (*names, "_op", "_snapshot", "_previous_key", "_next_key")}
    streamed = row["_op"] != "r"
    own["_position"] = repr((row["_position_major"], row["_position_minor"])) if streamed else ""
    return own | {name: repr(sorted(row[name] or ())) for name in ("_unset", "_flags")}


def distinct(rows: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """Give each row once, sorted: after the kill (fact 15) the connectors sent different numbers of changes again."""
    return [dict(items) for items in sorted({tuple(sorted(row.items())) for row in rows})]


def without(rows: Iterable[Mapping[str, str]], name: str) -> list[dict[str, str]]:
    """Give distinct rows without one column."""
    return distinct({k: v for k, v in row.items() if k != name} for row in rows)


def plain(value: Any) -> Any:
    """Make equal values compare equal: NaN, the float that a real is, and decimals of another scale."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else float(f"{value:.6g}")
    if isinstance(value, Decimal):
        return value.normalize() if value else Decimal(0)
    return value


def truth(value: Any, kind: ColumnType) -> Any:
    """Give a value of `expected/` (PostgreSQL's text) as the tables hold it; infinities and odd years are null."""
    if value is None:
        return None
    if kind.element is not None:
        return [truth(v, kind.element) for v in value]
    return TRUTH.get(kind.name, lambda v, k: v)(value, kind)


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


def _position(change: Mapping[str, Any]) -> tuple[int, int]:
    return (change["_position_major"] or -1, change["_position_minor"])


def _key_text(change: Mapping[str, Any], key: Sequence[str]) -> str:
    return json.dumps({name: change[name] for name in key}, separators=(",", ":"), default=str)


def _expected(row: Row, field: Field) -> Any:
    name = _name(field, row)
    return None if name is None else truth(row[name], field.type)


def _name(field: Field, row: Row) -> str | None:
    """Give the table's name of a field; in Avro the message has an adjusted one (fact 23)."""
    return next((n for n in row if field.source in (n, adjusted(n))), None)


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

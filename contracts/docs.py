"""Writes the tables of docs/contracts.md from the named tables that the code reads: `python -m contracts.docs`."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from contracts.fields import LOGICAL
from contracts.masking import MASK_KINDS
from contracts.measures import FUNCTIONS
from contracts.odcs import known_settings, own_schema
from contracts.quality import RULE_KINDS
from contracts.sla import LEVEL_KINDS
from contracts.sql import META
from contracts.tables import TABLE_KINDS
from contracts.types import ALIASES, STORED

PAGE = Path(__file__).parents[1] / "docs" / "contracts.md"

# Canonical type -> what Debezium sends (JSON; Avro has the same, with bytes for base64).
SENT: Mapping[str, str] = {
    **dict.fromkeys(("smallint", "integer", "bigint", "oid"), "number"),
    **dict.fromkeys(("real", "double precision"), 'number, or "NaN", "Infinity", "-Infinity"'),
    "boolean": "boolean",
    "bytea": "base64",
    "date": "days since 1970",
    "time": "milliseconds or microseconds since midnight, by precision",
    "timetz": "ISO 8601 text in UTC",
    "timestamp": "milliseconds (precision up to 3) or microseconds since 1970",
    "timestamptz": "ISO 8601 text in UTC",
    "interval": "microseconds, months and years approximated",
    **dict.fromkeys(("bit", "varbit"), "boolean (bit(1)) or little-endian bytes"),
    "point": "structure x, y, wkb, srid",
    "numeric": "base64 of the unscaled number; without a precision {scale, value}",
    "money": "base64 of the unscaled number",
    **dict.fromkeys(("json", "jsonb", "hstore"), "JSON text"),
}


def refreshed(page: str) -> str:
    """Give the page with every generated table written anew."""
    for name, write in TABLES.items():
        mark = re.compile(rf"(<!-- table: {name} -->\n?).*?(<!-- end -->)", re.DOTALL)
        page = mark.sub(functools.partial(_between_marks, write()), page)
    return page


def _between_marks(text: str, found: re.Match[str]) -> str:
    return f"{found[1]}{text}{found[2]}"


def _settings(level: str) -> str:
    rows = [_setting(name, own_schema()["$defs"][definition]) for name, definition in known_settings(level).items()]
    return _table(("setting", "value", "default", "meaning"), rows)


def _setting(name: str, definition: Mapping[str, Any]) -> tuple[str, ...]:
    parts = definition.get("properties", {})
    meaning = definition["description"]
    described = [(part, inner) for part, inner in parts.items() if "description" in inner and part != "keyId"]
    for part, inner in described:
        meaning += f"<br>`{part}`: {inner['description']}{_choices(inner)}"
    return f"`{name}`", _values(definition), _default(definition), meaning


def _choices(part: Mapping[str, Any]) -> str:
    named = f" One of {_values(part)}." if "enum" in part else ""
    default = _default(part)
    return f"{named} Default {default.strip('`')}." if "default" in part else named


def _values(definition: Mapping[str, Any]) -> str:
    if "enum" in definition:
        return ", ".join(f"`{choice}`" for choice in definition["enum"] if isinstance(choice, str))
    if definition["type"] == "object" and "properties" in definition:
        names = ", ".join(definition["properties"])
        return f"`{{{names}{', ...' if 'required' in definition else ''}}}`"
    if definition.get("items", {}).get("type") == "object":
        return "a list"
    kinds = {"array": "a list of texts", "object": "lists by name", "boolean": "`true`, `false`", "string": "text"}
    return kinds[definition["type"]]


def _default(definition: Mapping[str, Any]) -> str:
    parts = definition.get("properties", {})
    if "default" not in definition:
        return ", ".join(f"`{n}: {p['default']}`" for n, p in parts.items() if "default" in p and "enum" in p)
    default = definition["default"]
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _types() -> str:
    by_row: dict[tuple[str, str, str], list[str]] = {}
    for name, arrow in STORED.items():
        stored = _delta(arrow)
        if name == "numeric":
            stored = "decimal(38,s) for numeric(p,s); string, all digits, without a precision"
        logical = ", ".join(f"`{kind}`" for kind in sorted(LOGICAL.get(name, {"string"})))
        by_row.setdefault((SENT.get(name, "text"), logical, stored), []).append(name)
    rows = [(", ".join(_names(name) for name in names), logical, sent, stored)
            for (sent, logical, stored), names in by_row.items()]  # fmt: skip
    rows.append(("any of them with `[]`", "`array`", "list of the same", "array of the same"))
    return _table(("`physicalType`", "`logicalType`", "Debezium sends", "stored as"), rows)


def _names(name: str) -> str:
    others = sorted(alias for alias, target in ALIASES.items() if target == name)
    return f"`{name}`" + (f" ({', '.join(others)})" if others else "")


def _delta(arrow: pa.DataType) -> str:
    """Give an Arrow type as Delta names it."""
    names = {pa.int64(): "long", pa.float32(): "float", pa.float64(): "double", pa.bool_(): "boolean",
             pa.date32(): "date", pa.binary(): "binary", pa.timestamp("us"): "timestamp without time zone",
             pa.timestamp("us", tz="UTC"): "timestamp"}  # fmt: skip
    if pa.types.is_decimal(arrow):
        return f"decimal({arrow.precision},{arrow.scale})"
    return names.get(arrow, "struct x, y" if pa.types.is_struct(arrow) else "string")


def _rules() -> str:
    rows = [(f"`{name}`", kind.holds, kind.arguments, kind.taken) for name, kind in RULE_KINDS.items()]
    return _table(("kind", "a row meets it when", "arguments", "columns"), rows)


def _masks() -> str:
    rows = [
        (f"`{name}`", kind.holds, kind.arguments, kind.taken, "yes" if kind.on_keys else "no")
        for name, kind in MASK_KINDS.items()
    ]
    return _table(("mask", "what is stored", "arguments", "columns", "on keys"), rows)


def _functions() -> str:
    rows = [
        (f"`{name}`", known.holds, known.taken, "yes" if known.retracts else "no") for name, known in FUNCTIONS.items()
    ]
    return _table(("function", "gives", "of", "over current"), rows)


def _levels() -> str:
    rows = [(f"`{name}`", kind.limits, kind.element) for name, kind in LEVEL_KINDS.items()]
    return _table(("property", "limits", "`element`"), rows)


def _kept() -> str:
    rows = [(f"`{kind.name}`", f"`<stream>{kind.suffix}`", kind.holds) for kind in TABLE_KINDS]
    return _table(("kind", "table", "holds"), rows)


def _meta() -> str:
    return ", ".join(f"`{name}`" for name in META) + ".\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


TABLES: Mapping[str, Callable[[], str]] = {
    "contractSetting": lambda: _settings("contractSetting"),
    "columnSetting": lambda: _settings("columnSetting"),
    "tables": _kept,
    "types": _types,
    "rules": _rules,
    "masks": _masks,
    "levels": _levels,
    "meta": _meta,
    "functions": _functions,
}

if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text("utf-8")), "utf-8")

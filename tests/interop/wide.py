"""A made-up source whose rows have a column of every stored type, with values at the ends of what each can hold."""

from __future__ import annotations

import dataclasses
import json
import random
from datetime import date
from decimal import Decimal
from typing import Any

from contracts.model import Contract, Field, StateTables
from contracts.types import parse_type
from tests.lakehouse.rows import NOW
from tests.lakehouse.state.source import COMPOSITE, CONTRACT, Row, Source

INF, NAN = float("inf"), float("nan")
EARLIEST = -62_135_596_800_000_000  # us: 0001-01-01
LATEST = 253_402_300_799_999_999  # us: 9999-12-31
DAYS = (None, date(1, 1, 1), date(1582, 10, 10), date(2024, 2, 29), date(9999, 12, 31))
TIMES = (None, EARLIEST, -1, 0, 1_700_000_000_123_456, LATEST)
TEXTS = (None, "", "plain", "☃ 𝄞 \n'\"", "e\u0301", "x" * 300)

# Column -> its type in the source, and values for it.
WIDE: dict[str, tuple[str, tuple[Any, ...]]] = {
    "small": ("smallint", (None, -32768, 0, 32767)),
    "whole": ("bigint", (None, -(1 << 63), (1 << 63) - 1)),
    "ratio": ("real", (None, -0.0, 1.5, INF, -INF, NAN)),
    "precise": ("double precision", (None, -0.0, 5e-324, 1.7976931348623157e308, INF, NAN)),
    "flag": ("boolean", (None, True, False)),
    "price": ("numeric(12,2)", (None, Decimal("-0.01"), Decimal("9" * 36 + ".99"))),
    "money": ("money", (None, Decimal("0.00"), Decimal("-1234.50"))),
    "exact": ("numeric", (None, "1" + "0" * 60 + ".000", "-0.5")),
    "uid": ("uuid", (None, "00000000-0000-0000-0000-000000000000")),
    "doc": ("jsonb", (None, '{"a": [1, null, "é"]}')),
    "day": ("date", DAYS),
    "at": ("timestamp", TIMES),
    "seen": ("timestamptz", TIMES),
    "raw": ("bytea", (None, b"", b"\x00\xff\xfe")),
    "place": ("point", (None, {"x": 1.5, "y": -0.0}, {"x": None, "y": None})),
    "tags": ("text[]", (None, [], ["a", None, "", "☃"])),
    "counts": ("bigint[]", (None, [], [1, None])),
    "span": ("interval", (None, 86_400_000_000)),
    "label": ("text", TEXTS),
}
PARTS = {
    "part": ("enum", (None, "é", 'a b/c=d%:"\n')),
    "day_part": ("date", (None, date(1969, 12, 31))),
}


def wide(*, composite: bool = False, partitioned: bool = False, **state: Any) -> Contract:
    """Give the contract; partitioned: by two of its columns."""
    columns = WIDE | (PARTS if partitioned else {})
    added = tuple(Field(name, name, parse_type(kind)) for name, (kind, _) in columns.items())
    base = COMPOSITE if composite else CONTRACT
    return dataclasses.replace(
        base,
        fields=(*base.fields, *added),
        partition_by=tuple(PARTS) if partitioned else (),
        state=StateTables(**state),
    )


class WideSource(Source):
    """Sends every change with values for the other columns; which ones follows from its position alone."""

    def by_partition(self) -> dict[int, list[Row]]:
        found = super().by_partition()
        names = [f.name for f in self.contract.fields]
        columns = {name: values for name, (_, values) in (WIDE | PARTS).items() if name in names}
        for events in found.values():
            for event in events:
                if event["_op"] != "d" and event["_kind"] is None:
                    chosen = random.Random(event["_position_minor"])
                    event |= {name: chosen.choice(values) for name, values in columns.items()}
        return found


def rejected(event: Row, of: Contract) -> Row:
    """Give the quarantine row of a change that a rule kept out."""
    names = ("_op", "_event_time", "_position_major", "_position_minor", "_topic", "_partition", "_offset")
    key = json.dumps({f.name: event[f.name] for f in of.key}, ensure_ascii=False)
    said = {"_stage": "check", "_rules": ["n:range", "☃"], "_reason": "broken", "_key": key, "_payload": b"\x00\xff"}
    return {**said, "_payload_form": "masked", "_ingested_at": NOW * 1000, **{name: event[name] for name in names}}

"""Durations as people write them: `500 ms`, `10 s`, `5 minutes`, `2 h`, `7 days`."""

from __future__ import annotations

import re

# The SLA units of ODCS (d, day, days, ...) are among them.
UNITS_MS = {
    "ms": 1, "millisecond": 1, "milliseconds": 1,
    "s": 1_000, "sec": 1_000, "second": 1_000, "seconds": 1_000,
    "m": 60_000, "min": 60_000, "minute": 60_000, "minutes": 60_000,
    "h": 3_600_000, "hr": 3_600_000, "hour": 3_600_000, "hours": 3_600_000,
    "d": 86_400_000, "day": 86_400_000, "days": 86_400_000,
    "w": 604_800_000, "week": 604_800_000, "weeks": 604_800_000,
    "y": 31_536_000_000, "yr": 31_536_000_000, "year": 31_536_000_000, "years": 31_536_000_000,
}  # fmt: skip

_WRITTEN = re.compile(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([a-z]+)\s*")


def parse_duration(text: str) -> int:
    """Give a written duration in milliseconds; raises ValueError when it is not one."""
    found = _WRITTEN.fullmatch(text.lower())
    if not found or found[2] not in UNITS_MS:
        raise ValueError(f"{text!r} is not a duration such as '10 s' or '5 minutes'")
    return round(float(found[1]) * UNITS_MS[found[2]])

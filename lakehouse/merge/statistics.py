"""File statistics in the JSON forms that the Delta protocol prescribes, for named columns only."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

PREFIX = 32  # characters kept of a text
_LAST = "\U0010ffff"  # sorts after every other character
_LOOSE = '{"tightBounds":false'
_TIGHT = re.compile(r'"tightBounds"\s*:\s*true')

# What Python's dates reach: year 1 to 9999. A file with values beyond has no bounds for the column.
_DAYS = (-719_162, 2_932_896)
_MICROS = (-62_135_596_800_000_000, 253_402_300_799_000_000)


def stats_of(rows: pa.Table, columns: Iterable[str]) -> str:
    """Give the statistics of a file's rows: the row count, and bounds and null counts of the given columns."""
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for name in columns:
        values = rows[name]
        nulls[name] = values.null_count
        if (bounds := _bounds(values)) is not None:
            low[name], high[name] = bounds[0], bounds[1]
            if bounds[1] is None:
                del high[name]
    stats = {"numRecords": len(rows), "minValues": low, "maxValues": high, "nullCount": nulls}
    return orjson.dumps(stats).decode()


def loosened(stats: str | None, rows: int) -> str:
    """Give the statistics of a file that has a deletion vector: the same bounds, no longer tight.

    The text is changed, not parsed and written again: that would lose digits of decimals.
    """
    if not stats or stats == "{}":
        return f'{_LOOSE},"numRecords":{rows}}}'
    if stats.startswith(_LOOSE):
        return stats
    said = orjson.loads(stats)
    if "tightBounds" in said:
        return _TIGHT.sub('"tightBounds":false', stats)
    counted = "" if "numRecords" in said else f'"numRecords":{rows},'
    return f"{_LOOSE},{counted}{stats.lstrip()[1:]}"


def _bounds(values: pa.ChunkedArray) -> tuple[Any, Any] | None:
    """Give the smallest and the largest value as JSON has them; None where they cannot be said."""
    kind = values.type
    if values.null_count == len(values) or not _bounded(kind):
        return None
    if pa.types.is_floating(kind) and pc.any(pc.is_nan(values)).as_py():
        return None
    found = pc.min_max(values)
    low, high = found["min"], found["max"]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return low.as_py()[:PREFIX], _ceiling(high.as_py())
    if pa.types.is_decimal(kind):
        return _decimal(low), _decimal(high)
    if pa.types.is_date(kind):
        return (low.as_py().isoformat(), high.as_py().isoformat()) if _within(low, high, _DAYS) else None
    if pa.types.is_timestamp(kind):
        return _moments(low, high, kind) if _within(low, high, _MICROS) else None
    if pa.types.is_floating(kind) and not (math.isfinite(low.as_py()) and math.isfinite(high.as_py())):
        return None
    return low.as_py(), high.as_py()


def _bounded(kind: pa.DataType) -> bool:
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(numeric or text or pa.types.is_date32(kind) or pa.types.is_timestamp(kind))


def _ceiling(text: str) -> str | None:
    """Give a text that is not below the given one nor below any that begins alike; None when there is none."""
    if len(text) <= PREFIX:
        return text
    return None if text[PREFIX] == _LAST else text[:PREFIX] + _LAST


def _decimal(value: pa.Scalar) -> orjson.Fragment:
    """Give a decimal as a JSON number with all its digits."""
    return orjson.Fragment(format(value.as_py(), "f"))


def _within(low: pa.Scalar, high: pa.Scalar, limits: tuple[int, int]) -> bool:
    return bool(limits[0] <= low.value and high.value <= limits[1])


def _moments(low: pa.Scalar, high: pa.Scalar, kind: pa.DataType) -> tuple[str, str]:
    """Give timestamps in ms: the smallest rounded down, the largest up, so that they enclose every value."""
    above = high.as_py()
    above += timedelta(microseconds=-above.microsecond % 1000)
    zone = "Z" if kind.tz else ""
    return tuple(  # type: ignore[return-value]
        f"{moment.replace(tzinfo=None).isoformat(timespec='milliseconds')}{zone}" for moment in (low.as_py(), above)
    )

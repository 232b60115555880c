"""Dates, times and timestamps as Debezium or a plain event sends them, to the stored types.

Stored are the years 1 to 9999 (what Delta's readers agree on). An infinity or a year beyond becomes null and a flag.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from udfs import slices
from udfs.converted import INFINITY, OUT_OF_RANGE, Converted, flagged, refused

Ints = npt.NDArray[np.int64]

# How many microseconds one unit is; nanoseconds are divided.
MICROS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896  # 0001-01-01, 9999-12-31
_DAY = 86_400_000_000
_FIRST, _LAST = _FIRST_DAY * _DAY, (_LAST_DAY + 1) * _DAY - 1

# What Debezium 3.7 sends for PostgreSQL's infinities (corpus README fact 8; the date's third value is a snapshot's).
_INFINITE_DAYS = (2146033979, -2147472691, -622191234)
_INFINITE = {
    "ms": (9223372036825200000, -9223372036832400000),
    "us": (2**63 - 1, -(2**63), 9223372036825200000, -9223372036832400000),
}


def timestamp_from_number(values: pa.Array, unit: str, stored: pa.DataType) -> Converted:
    """Give timestamps (us) from numbers since the epoch in s, ms, us or ns."""
    numbers = _numbers(values)
    if unit == "ns":
        numbers, unit = numbers // 1000, "us"
    factor = MICROS[unit]
    outside = _beyond(numbers, -(-_FIRST // factor), _LAST // factor)
    infinite = _among(numbers, _INFINITE.get(unit, ())) if outside is not None else None
    if outside is not None:
        numbers = np.where(outside, 0, numbers)
    micros = _like(values, numbers * factor, pa.int64()).view(pa.timestamp("us"))
    return flagged(micros.cast(stored) if stored.tz else micros, infinite, outside)


def timestamp_from_text(values: pa.StringArray, stored: pa.DataType) -> Converted:
    """Give timestamps (us) from ISO 8601 text; text without a zone is taken as UTC."""
    try:
        parsed = pc.cast(values, stored)
    except pa.ArrowInvalid:
        return _one_by_one(values, stored)
    if _in_range(parsed):
        return Converted(parsed)
    return flagged(parsed, None, _beyond(_numbers(parsed.cast(pa.int64())), _FIRST, _LAST))


def date_from_number(values: pa.Array) -> Converted:
    """Give dates from days since the epoch."""
    days = _numbers(values)
    outside = _beyond(days, _FIRST_DAY, _LAST_DAY)
    infinite = _among(days, _INFINITE_DAYS) if outside is not None else None
    if outside is not None:
        days = np.where(outside, 0, days)
    return flagged(_like(values, days.astype(np.int32), pa.date32()), infinite, outside)


def date_from_text(values: pa.StringArray) -> Converted:
    """Give dates from ISO 8601 text."""
    try:
        return Converted(pc.cast(values, pa.date32()))
    except pa.ArrowInvalid:
        moments = timestamp_from_text(values, pa.timestamp("us"))
        return Converted(pc.cast(moments.values, pa.date32(), safe=False), moments.flags, moments.wrong)


def time_from_number(values: pa.Array, unit: str) -> Converted:
    """Give the ISO text (hh:mm:ss, with a fraction where there is one) of a time of day; 24:00:00 is one."""
    numbers = _numbers(values)
    micros = numbers // 1000 if unit == "ns" else np.where(np.abs(numbers) > _DAY, -1, numbers) * MICROS[unit]
    wrong = ((micros < 0) | (micros > _DAY)) & slices.valid(values)
    midnight = micros == _DAY
    within = _like(values, np.where(wrong | midnight, 0, micros), pa.int64())
    written = pc.cast(within.view(pa.time64("us")), pa.string())
    written = pc.utf8_rtrim(pc.utf8_rtrim(written, characters="0"), characters=".")
    if midnight.any():
        written = pc.if_else(slices.marks(midnight & slices.valid(values)), "24:00:00", written)
    return refused(written, wrong)


def _one_by_one(values: pa.StringArray, stored: pa.DataType) -> Converted:
    """Read texts singly: only when one of them is infinite, of an odd year or not ISO 8601 at all."""
    read: list[dt.datetime | None] = []
    flags: list[str | None] = []
    wrong = np.zeros(len(values), np.bool_)
    for index, value in enumerate(values.to_pylist()):
        moment, flag = (None, None) if value is None else _moment(value)
        read.append(moment)
        flags.append(flag)
        wrong[index] = value is not None and moment is None and flag is None
    reasons = pa.array(flags, pa.string())
    return refused(pa.array(read, stored), wrong, reasons if reasons.null_count < len(reasons) else None)


def _moment(value: str) -> tuple[dt.datetime | None, str | None]:
    """Give the moment in UTC, or why it cannot be stored; neither when the text is no time at all."""
    if value in ("infinity", "-infinity"):
        return None, INFINITY
    try:
        moment = dt.datetime.fromisoformat(value)
        return (moment if moment.tzinfo is None else moment.astimezone(dt.UTC)), None
    except OverflowError:
        return None, OUT_OF_RANGE
    except ValueError:
        year = value[1:] if value[:1] in "+-" else value
        odd = year.split("-", 1)[0].isdecimal() and "-" in year and (value[:1] in "+-" or value.index("-") > 4)
        return None, OUT_OF_RANGE if odd else None


def _in_range(parsed: pa.Array) -> bool:
    if len(parsed) == parsed.null_count:
        return True
    numbers = _numbers(parsed.cast(pa.int64()))
    return bool(numbers.min() >= _FIRST and numbers.max() <= _LAST)


def _numbers(values: pa.Array) -> Ints:
    """Give integers as numpy, 0 where null."""
    whole = values if values.type == pa.int64() else pc.cast(values, pa.int64())
    return np.asarray((whole.fill_null(0) if whole.null_count else whole).to_numpy(zero_copy_only=False), np.int64)


def _beyond(numbers: Ints, first: int, last: int) -> npt.NDArray[np.bool_] | None:
    if not len(numbers) or (numbers.min() >= first and numbers.max() <= last):
        return None
    return np.asarray((numbers < first) | (numbers > last), np.bool_)


def _among(numbers: Ints, special: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    return np.isin(numbers, np.array(special, np.int64))


def _like(values: pa.Array, numbers: npt.NDArray[np.int64] | npt.NDArray[np.int32], stored: pa.DataType) -> pa.Array:
    """Give numbers as an array that is null where `values` is."""
    validity = values.is_valid().buffers()[1] if values.null_count else None
    return pa.Array.from_buffers(stored, len(values), [validity, pa.py_buffer(np.ascontiguousarray(numbers))])

"""What rate of records is usual for an hour of the week, told from samples of earlier weeks. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

HOUR_MS = 3_600_000
HOURS = 168  # of a week, counted from Monday 00:00 UTC
EPOCH_HOUR = 72  # 1970-01-01 was a Thursday
ENOUGH_WEEKS = 3  # that have seen the hour
ENOUGH_SECONDS = 1800.0  # of the hour, in each of them
LOOKED_BACK = 4  # weeks


@dataclass(frozen=True)
class Sample:
    """How many records came in the seconds before a time (ms since the epoch)."""

    until_ms: int
    seconds: float
    records: int


@dataclass(frozen=True)
class Usual:
    """What an hour of the week brings at least: the lowest rate of the last weeks, records an hour."""

    per_hour: float
    weeks: int


def hour_of_week(at_ms: int) -> int:
    """Give the hour of the week, 0 to 167, from Monday 00:00 UTC."""
    return (at_ms // HOUR_MS + EPOCH_HOUR) % HOURS


def into_hour_ms(at_ms: int) -> int:
    """Give how much of its hour has gone at a time."""
    return at_ms % HOUR_MS


def middle_ms(until_ms: int, seconds: float) -> int:
    """Give the middle of a sample, whose hour it counts for."""
    return until_ms - int(seconds * 500)


def usual(samples: Iterable[Sample], now_ms: int) -> Usual | None:
    """Give what is usual for the hour that it is now; None when there is not enough history.

    Enough are ENOUGH_WEEKS earlier weeks with samples of this hour over ENOUGH_SECONDS each; the newest LOOKED_BACK
    weeks count. Of them the lowest rate is given, so that a holiday among them makes silence usual.
    """
    hour, this = hour_of_week(now_ms), _week(now_ms)
    seconds: dict[int, float] = defaultdict(float)
    records: dict[int, int] = defaultdict(int)
    for sample in samples:
        at = middle_ms(sample.until_ms, sample.seconds)
        week = _week(at)
        if hour_of_week(at) == hour and this - LOOKED_BACK <= week < this:
            seconds[week] += sample.seconds
            records[week] += sample.records
    rates = [records[week] / covered * 3600 for week, covered in seconds.items() if covered >= ENOUGH_SECONDS]
    return Usual(min(rates), len(rates)) if len(rates) >= ENOUGH_WEEKS else None


def _week(at_ms: int) -> int:
    return (at_ms // HOUR_MS + EPOCH_HOUR) // HOURS

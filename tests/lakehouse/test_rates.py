"""What is usual at an hour of the week: told from enough earlier weeks, or not at all."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from lakehouse.rates import HOUR_MS, HOURS, Sample, Usual, hour_of_week, usual

NOW = int(datetime(2026, 3, 4, 10, 30, tzinfo=UTC).timestamp() * 1000)  # a Wednesday
WEEK_MS = HOURS * HOUR_MS


def samples(week: int, records: int, minutes: int = 60, until: int = 10) -> list[Sample]:
    """Give samples of ten minutes of an hour so many weeks ago."""
    start = NOW // HOUR_MS * HOUR_MS - week * WEEK_MS
    return [Sample(start + (n + 1) * until * 60_000, until * 60.0, records) for n in range(minutes // until)]


def test_hours_are_counted_from_monday_midnight_utc() -> None:
    monday = int(datetime(2026, 3, 2, tzinfo=UTC).timestamp() * 1000)
    assert hour_of_week(monday) == 0
    assert hour_of_week(monday - 1) == 167
    assert hour_of_week(NOW) == 2 * 24 + 10


def test_three_weeks_are_enough_and_the_lowest_counts() -> None:
    two = samples(1, 100) + samples(2, 50)
    assert usual(two, NOW) is None
    assert usual(two + samples(3, 70), NOW) == Usual(300.0, 3)


def test_half_of_the_hour_is_enough_of_a_week_and_less_is_not() -> None:
    two = samples(1, 100) + samples(2, 100)
    assert usual(two + samples(3, 100, minutes=20), NOW) is None
    assert usual(two + samples(3, 100, minutes=30), NOW) == Usual(600.0, 3)


def test_this_week_and_weeks_long_ago_do_not_count() -> None:
    assert usual(samples(0, 9) + samples(1, 9) + samples(2, 9), NOW) is None
    assert usual(samples(5, 9) + samples(1, 9) + samples(2, 9), NOW) is None


@given(st.lists(st.builds(Sample, st.integers(NOW - 6 * WEEK_MS, NOW), st.floats(1, 1800), st.integers(0, 10**6))))
def test_what_is_usual_is_never_more_than_a_sample_had(given_samples: list[Sample]) -> None:
    found = usual(given_samples, NOW)
    assert found is None or 0 <= found.per_hour <= max(s.records / s.seconds for s in given_samples) * 3600 * 1.001

"""How a stream is judged: every verdict, on streams that are quiet, broken, empty, parked, or whose clocks disagree."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.model import ServiceLevels
from lakehouse.anchor import AnchorState, PartitionState
from lakehouse.freshness import (
    HEARTBEAT_MS,
    SEVERITY,
    STALLED_MS,
    Asked,
    Cause,
    Colour,
    Health,
    Job,
    Past,
    Waiting,
    evaluate,
    measure,
    span,
)
from lakehouse.rates import HOUR_MS, Usual
from lakehouse.standing import Standing

SECOND, MINUTE, HOUR = 1_000, 60_000, HOUR_MS
NOW = 470_000 * HOUR + 30 * MINUTE  # half past an hour
NOTHING, EMPTY, NONE_WAIT = ServiceLevels(), Standing(), Waiting(0)
LATENCY = ServiceLevels(latency_ms=MINUTE)
FRESHNESS = ServiceLevels(freshness_ms=10 * MINUTE)
FREQUENCY = ServiceLevels(frequency_ms=10 * MINUTE)
EVERY = ServiceLevels(MINUTE, True, 10 * MINUTE, 10 * MINUTE)


def standing(*partitions: tuple[int, int], committed: int = SECOND, watermark: int | None = None) -> Standing:
    """Give a stream whose partitions have (age of the newest event, age of the last arrival), all in ms."""
    states = {
        ("t", n): PartitionState(0, 0, NOW - event, active=NOW - came) for n, (event, came) in enumerate(partitions)
    }
    anchor = AnchorState("p", "s", partitions=states, watermark_ms=None if watermark is None else NOW - watermark)
    return Standing(anchor, dict.fromkeys(states, 9), {}, NOW - committed)


FRESH = standing((2 * SECOND, SECOND))
QUIET = standing((HOUR, HOUR), committed=HOUR)


def judged(sla: ServiceLevels, at: Standing = FRESH, waiting: Waiting | None = NONE_WAIT, **rest: Any) -> Health:
    return evaluate(Asked(sla, at, waiting, **{"job": Job.RUNS, **rest}), NOW)


def waits(age: int, records: int = 3) -> Waiting:
    return Waiting(records, NOW - age)


def verdict(health: Health) -> tuple[Colour, Cause]:
    return health.colour, health.cause


@pytest.mark.parametrize("sla", [NOTHING, LATENCY, FRESHNESS, FREQUENCY, EVERY])
def test_a_stream_that_keeps_its_promises_is_green_and_says_nothing(sla: ServiceLevels) -> None:
    health = judged(sla, waiting=waits(SECOND))
    assert (*verdict(health), health.reason) == (Colour.GREEN, Cause.FINE, "")


@pytest.mark.parametrize("waiting", [None, Waiting(0), Waiting(5), waits(MINUTE)])
@pytest.mark.parametrize("at", [EMPTY, FRESH, QUIET])
def test_a_stream_without_promises_is_green_while_its_job_runs(at: Standing, waiting: Waiting | None) -> None:
    assert verdict(judged(NOTHING, at, waiting)) == (Colour.GREEN, Cause.FINE)


@pytest.mark.parametrize("sla", [NOTHING, EVERY])
def test_records_that_wait_without_a_job_are_red(sla: ServiceLevels) -> None:
    health = judged(sla, waiting=waits(90 * SECOND), job=Job.DOWN)
    assert verdict(health) == (Colour.RED, Cause.JOB_DOWN)
    assert health.reason == "the job does not run: 3 records wait, the oldest for 90 s"


def test_a_stopped_job_with_nothing_to_do_is_green_without_promises_and_amber_with_them() -> None:
    assert verdict(judged(NOTHING, job=Job.DOWN)) == (Colour.GREEN, Cause.FINE)
    assert verdict(judged(EVERY, job=Job.DOWN)) == (Colour.AMBER, Cause.IDLE)


def test_a_stopped_job_is_red_without_an_answer_of_kafka_once_a_limit_is_passed() -> None:
    assert verdict(judged(EVERY, waiting=None, job=Job.DOWN)) == (Colour.AMBER, Cause.UNKNOWN)
    assert verdict(judged(EVERY, QUIET, waiting=None, job=Job.DOWN)) == (Colour.RED, Cause.JOB_DOWN)
    assert verdict(judged(NOTHING, QUIET, waiting=None, job=Job.DOWN)) == (Colour.AMBER, Cause.UNKNOWN)


@pytest.mark.parametrize("job", Job)
def test_a_parked_or_paused_stream_is_red_with_its_reason_whatever_else(job: Job) -> None:
    health = judged(EVERY, QUIET, waits(HOUR), job=job, parked="paused by hand")
    assert (*verdict(health), health.reason) == (Colour.RED, Cause.PARKED, "it stands still: paused by hand")


@pytest.mark.parametrize("at", [QUIET, EMPTY])
def test_a_job_that_commits_nothing_while_records_wait_is_red_without_promises(at: Standing) -> None:
    assert verdict(judged(NOTHING, at, waits(STALLED_MS))) == (Colour.GREEN, Cause.FINE)
    assert verdict(judged(NOTHING, at, waits(STALLED_MS + 1))) == (Colour.RED, Cause.STALLED)


def test_a_job_that_fails_and_starts_again_is_red_without_promises() -> None:
    health = judged(NOTHING, job=Job.FAILS)
    assert verdict(health) == (Colour.RED, Cause.JOB_FAILS)
    assert health.reason == "the job fails and starts again: nothing waits"


def test_a_job_that_works_off_a_backlog_does_not_stall() -> None:
    assert verdict(judged(NOTHING, FRESH, waits(5 * HOUR))) == (Colour.GREEN, Cause.FINE)


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (48 * SECOND, (Colour.GREEN, Cause.FINE)),
        (49 * SECOND, (Colour.AMBER, Cause.NEAR)),
        (60 * SECOND, (Colour.AMBER, Cause.NEAR)),
        (61 * SECOND, (Colour.RED, Cause.VIOLATED)),
    ],
)
def test_a_latency_is_the_age_of_the_oldest_waiting_record(age: int, expected: tuple[Colour, Cause]) -> None:
    assert verdict(judged(LATENCY, waiting=waits(age))) == expected


def test_a_latency_from_the_event_counts_the_way_to_kafka_while_the_rows_are_news() -> None:
    late = standing((3 * MINUTE, 10 * SECOND))
    from_event = ServiceLevels(MINUTE, latency_from_event=True)
    assert verdict(judged(LATENCY, late)) == (Colour.GREEN, Cause.FINE)
    health = judged(from_event, late)
    assert (*verdict(health), health.reason) == (Colour.RED, Cause.VIOLATED, "violated: latency 2 min of 60 s")
    assert verdict(judged(from_event, standing((4 * MINUTE, 61 * SECOND)))) == (Colour.GREEN, Cause.FINE)


def test_a_quiet_source_breaks_no_latency() -> None:
    assert verdict(judged(EVERY, QUIET)) == (Colour.AMBER, Cause.QUIET)
    assert verdict(judged(LATENCY, QUIET)) == (Colour.GREEN, Cause.FINE)


@pytest.mark.parametrize("sla", [FRESHNESS, FREQUENCY])
def test_old_data_is_amber_while_nothing_waits_and_red_once_records_are_held_up(sla: ServiceLevels) -> None:
    health = judged(sla, QUIET)
    assert verdict(health) == (Colour.AMBER, Cause.QUIET)
    assert "not enough history" in health.reason
    assert verdict(judged(sla, QUIET, waits(SECOND))) == (Colour.AMBER, Cause.QUIET), "just came"
    assert verdict(judged(sla, QUIET, waits(61 * SECOND))) == (Colour.RED, Cause.VIOLATED)
    assert verdict(judged(sla, QUIET, Waiting(1))) == (Colour.RED, Cause.VIOLATED), "nobody knows since when"
    assert verdict(judged(sla, QUIET, None)) == (Colour.AMBER, Cause.UNKNOWN)


def test_rows_that_come_with_old_events_break_a_freshness_and_no_frequency() -> None:
    behind = standing((HOUR, SECOND))
    assert verdict(judged(FRESHNESS, behind)) == (Colour.RED, Cause.VIOLATED)
    assert verdict(judged(FREQUENCY, behind)) == (Colour.GREEN, Cause.FINE)


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (SECOND, (Colour.AMBER, Cause.QUIET)),
        (HEARTBEAT_MS, (Colour.AMBER, Cause.QUIET)),
        (HEARTBEAT_MS + 1, (Colour.RED, Cause.HEARTBEATS_STOPPED)),
    ],
)
def test_heartbeats_tell_a_quiet_source_from_a_broken_one(age: int, expected: tuple[Colour, Cause]) -> None:
    past = Past(heartbeat_ms=NOW - age)
    assert verdict(judged(FRESHNESS, QUIET, past=past)) == expected
    assert verdict(judged(FRESHNESS, FRESH, past=past)) == (Colour.GREEN, Cause.FINE), "rows are a sign of life too"


@pytest.mark.parametrize(
    ("per_hour", "expected"),
    [
        (0.0, (Colour.AMBER, Cause.QUIET)),
        (19.9, (Colour.AMBER, Cause.QUIET)),
        (20.0, (Colour.RED, Cause.SILENT)),
        (9_000.0, (Colour.RED, Cause.SILENT)),
    ],
)
def test_silence_is_red_at_an_hour_that_always_brought_records(per_hour: float, expected: tuple[Colour, Cause]) -> None:
    health = judged(FREQUENCY, QUIET, past=Past(Usual(per_hour, 3)))  # half of the hour has gone
    assert verdict(health) == expected
    assert "history" not in health.reason


def test_silence_within_its_limit_is_green_however_unusual() -> None:
    assert verdict(judged(FREQUENCY, past=Past(Usual(9_000, 4)))) == (Colour.GREEN, Cause.FINE)


def test_a_stream_that_never_committed_is_quiet_or_on_its_way() -> None:
    assert verdict(judged(LATENCY, EMPTY)) == (Colour.GREEN, Cause.FINE)
    assert verdict(judged(FRESHNESS, EMPTY)) == (Colour.AMBER, Cause.QUIET)
    assert verdict(judged(FRESHNESS, EMPTY, waits(SECOND))) == (Colour.GREEN, Cause.FINE)
    assert verdict(judged(LATENCY, EMPTY, waits(2 * MINUTE))) == (Colour.RED, Cause.VIOLATED)
    assert verdict(judged(EVERY, EMPTY, waits(SECOND), job=Job.DOWN)) == (Colour.RED, Cause.JOB_DOWN)


def test_idle_partitions_make_a_stream_no_older() -> None:
    at = standing((SECOND, SECOND), (5 * HOUR, 5 * HOUR), watermark=12 * SECOND)
    health = judged(EVERY, at)
    assert verdict(health) == (Colour.GREEN, Cause.FINE)
    assert (health.measures.event_lag_ms, health.measures.watermark_lag_ms) == (SECOND, 12 * SECOND)
    assert health.measures.delay_ms == 0, "of the partition that brought the last rows"


def test_events_from_the_future_hide_no_age() -> None:
    ahead = standing((-4 * MINUTE, HOUR), committed=HOUR)
    health = judged(FRESHNESS, ahead)
    assert verdict(health) == (Colour.AMBER, Cause.QUIET)
    assert health.measures.event_lag_ms == HOUR, "as of its commit"
    assert health.reason.endswith("event times are up to 4 min ahead of the clock")
    assert verdict(judged(EVERY, standing((-4 * MINUTE, SECOND)))) == (Colour.GREEN, Cause.FINE)


def test_a_clock_behind_that_of_the_writers_measures_no_negative_ages() -> None:
    measures = measure(standing((-HOUR, -HOUR), committed=-HOUR, watermark=-HOUR), waits(-HOUR), NOW)
    ages = (measures.event_lag_ms, measures.commit_age_ms, measures.watermark_lag_ms, measures.oldest_waiting_ms)
    assert ages == (0, 0, 0, 0)


ages = st.integers(-HOUR, 40 * 24 * HOUR)
limits = st.none() | st.integers(1, 30 * 24 * HOUR)
slas = st.builds(ServiceLevels, limits, st.booleans(), limits, limits)
stands = st.just(EMPTY) | st.builds(
    lambda parts, committed, watermark: standing(*parts, committed=committed, watermark=watermark),
    st.lists(st.tuples(ages, ages), max_size=4), ages, st.none() | ages,
)  # fmt: skip
waitings = (
    st.none() | st.just(Waiting(0)) | st.builds(waits, ages, st.integers(1, 10**9)) | st.builds(Waiting, st.just(7))
)
usuals = st.none() | st.builds(Usual, st.floats(0, 1e9), st.integers(3, 4))
pasts = st.builds(Past, usuals, st.none() | st.builds(lambda age: NOW - age, ages))
everything = st.builds(Asked, slas, stands, waitings, st.sampled_from(Job), st.none() | st.just("why"), pasts)


def worse(one: Colour, other: Colour) -> bool:
    return SEVERITY.index(one) > SEVERITY.index(other)


@given(everything)
def test_whatever_is_asked_there_is_an_answer_with_a_reason(asked: Asked) -> None:
    health = evaluate(asked, NOW)
    assert health.reason or health.colour is Colour.GREEN
    assert (health.colour is Colour.GREEN) == (health.cause is Cause.FINE)
    numbers = vars(health.measures).values()
    assert all(number is None or number >= 0 for number in numbers)
    if asked.parked is not None:
        assert verdict(health) == (Colour.RED, Cause.PARKED)
    elif asked.job is Job.DOWN and asked.waiting is not None and asked.waiting.records:
        assert verdict(health) == (Colour.RED, Cause.JOB_DOWN)
    assert health == evaluate(asked, NOW), "the answer is a function of what is asked"


@given(everything, st.integers(1, 100))
def test_a_wider_promise_is_never_judged_worse(asked: Asked, times: int) -> None:
    own = asked.sla
    wider = ServiceLevels(
        own.latency_ms and own.latency_ms * times, own.latency_from_event,
        own.freshness_ms and own.freshness_ms * times, own.frequency_ms and own.frequency_ms * times,
    )  # fmt: skip
    # Rows of an earlier time are news for longer under a wider latency: compare what counts from Kafka.
    narrow = ServiceLevels(own.latency_ms, False, own.freshness_ms, own.frequency_ms)
    wide = ServiceLevels(wider.latency_ms, False, wider.freshness_ms, wider.frequency_ms)
    if own.freshness_ms is None:  # the same holds for old events, which are news within the freshness
        before, after = (evaluate(_with(asked, sla), NOW) for sla in (narrow, wide))
        assert not worse(after.colour, before.colour)


@given(everything)
def test_no_promise_makes_a_stream_better(asked: Asked) -> None:
    assert not worse(evaluate(_with(asked, NOTHING), NOW).colour, evaluate(asked, NOW).colour)


def _with(asked: Asked, sla: ServiceLevels) -> Asked:
    return Asked(sla, asked.standing, asked.waiting, asked.job, asked.parked, asked.past)


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0 ms"), (999, "999 ms"), (1_500, "1.5 s"), (90_000, "90 s"), (150_000, "2 min"), (10 * HOUR, "10 h"),
     (72 * HOUR, "3 d")],
)  # fmt: skip
def test_spans_are_for_people(ms: int, text: str) -> None:
    assert span(ms) == text

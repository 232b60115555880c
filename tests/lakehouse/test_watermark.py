"""Late verdicts are a function of what is committed, judged row by row in offset order."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from contracts.model import EventTime
from lakehouse.groups import NONE, Groups, Partition
from lakehouse.watermark import Lateness, Seen, judge_lateness

RULE = EventTime(out_of_orderness_ms=10, idle_timeout_ms=1000)
UNSEEN = Seen(None, {}, {})
A, B, C = ("t", 0), ("t", 1), ("t", 2)
FAR = 10**15


def judged(rows: dict[Partition, list[int | None]], seen: Seen = UNSEEN, now_ms: int = 0, cap: int = FAR) -> Lateness:
    rows = {partition: values for partition, values in rows.items() if values}
    times = [NONE if time is None else time for partition in sorted(rows) for time in rows[partition]]
    bounds = np.cumsum([0, *(len(rows[partition]) for partition in sorted(rows))]).tolist()
    groups = Groups(tuple(sorted(rows)), tuple(bounds), None)
    array = np.array(times, np.int64)
    return judge_lateness(array, np.full(len(times), cap), groups, seen, rule=RULE, now_ms=now_ms)


def test_a_row_is_late_when_it_is_below_the_watermark_that_the_rows_before_it_set() -> None:
    verdict = judged({A: [100, 90, 89, 200, 189, None]})
    assert verdict.late.tolist() == [False, False, True, False, True, False]
    assert verdict.lateness_ms.tolist() == [0, 0, 1, 0, 1, 0]
    assert verdict.seen == Seen(190, {A: 200}, {A: 0})


def test_a_fast_partition_never_condemns_a_slow_one() -> None:
    seen = judged({A: [100], B: [100]}).seen
    fast = judged({A: [100_000]}, seen)
    assert fast.seen.watermark == 90
    assert not judged({B: [101, 95]}, fast.seen).late.any()


def test_an_idle_partition_holds_nothing_back() -> None:
    seen = judged({A: [100], B: [100]}, now_ms=0).seen
    awake = judged({A: [500, 400]}, seen, now_ms=1000)
    assert awake.seen.watermark == 90 and not awake.late.any()
    idle = judged({A: [500, 400]}, seen, now_ms=1001)
    assert idle.seen.watermark == 490 and idle.late.tolist() == [False, True]


def test_the_watermark_never_goes_back() -> None:
    seen = judged({A: [1000]}, now_ms=0).seen
    woken = judged({B: [5]}, seen, now_ms=0)
    assert woken.seen.watermark == 990
    assert woken.lateness_ms.tolist() == [985]


def test_a_time_beyond_the_cap_says_nothing() -> None:
    verdict = judged({A: [100, 10**12, 90, 89]}, cap=1000)
    assert verdict.seen.highest == {A: 100}
    assert verdict.lateness_ms.tolist() == [0, 0, 0, 1]
    assert judged({A: [10**12]}, cap=1000).seen == UNSEEN


def test_rows_without_event_time_say_nothing() -> None:
    verdict = judged({A: [None, None]})
    assert verdict.seen == UNSEEN and not verdict.late.any()


times = st.lists(st.one_of(st.none(), st.integers(-100, 300)), max_size=30)


@given(times, st.lists(st.integers(0, 30), max_size=5))
def test_one_partition_is_judged_the_same_however_its_rows_are_split(rows: list[int | None], cuts: list[int]) -> None:
    whole = judged({A: rows})
    parts, seen = [], UNSEEN
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for low, high in itertools.pairwise(bounds):
        part = judged({A: rows[low:high]}, seen, now_ms=low * 10_000)
        parts += part.lateness_ms.tolist()
        seen = part.seen
    assert parts == whole.lateness_ms.tolist()
    assert (seen.watermark, seen.highest) == (whole.seen.watermark, whole.seen.highest)


@given(
    st.dictionaries(st.sampled_from([A, B, C]), times.filter(len), max_size=3),
    st.dictionaries(st.sampled_from([A, B, C]), st.tuples(st.integers(0, 200), st.integers(0, 3000)), max_size=3),
    st.one_of(st.none(), st.integers(0, 200)),
)
def test_the_vectorised_verdict_is_the_one_of_the_definition(
    rows: dict[Partition, list[int | None]], stored: dict[Partition, tuple[int, int]], watermark: int | None
) -> None:
    now = 2000
    seen = Seen(watermark, {p: high for p, (high, _) in stored.items()}, {p: at for p, (_, at) in stored.items()})
    brought = {p for p, values in rows.items() if any(value is not None for value in values)}
    awake = {p for p, at in seen.active.items() if now - at <= 1000} | brought
    expected = []
    for partition in sorted(rows):
        highs = dict(seen.highest)
        for time in rows[partition]:
            limit = NONE if watermark is None else watermark
            if partition in highs:
                limit = max(limit, min(highs[p] for p in (awake | {partition}) & highs.keys()) - 10)
            expected.append(0 if time is None else max(0, limit - time) if limit != NONE else 0)
            if time is not None:
                highs[partition] = max(time, highs.get(partition, time))
    assert judged(rows, seen, now_ms=now).lateness_ms.tolist() == expected

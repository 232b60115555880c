"""Laws of commit: however records are cut into sections, repeated, overlapped, ordered and grouped into commits, the
tables are the same."""

from __future__ import annotations

import random
import tempfile

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakehouse.errors import GapFound
from lakehouse.lake import Lake
from lakehouse.segments import Section
from tests.lakehouse.rows import NOW, TOPIC, no_gaps, offsets, other, reject, row, section, tables, values, write

COUNT = 12  # records of each partition


def records(partition: int, low: int, high: int) -> tuple[list, list, list]:
    """Give the accepted, rejected and other records of a stretch of a partition; always the same."""
    kinds = ([], [], [])
    for offset in range(low, high):
        source = random.Random(partition * 1000 + offset)
        make = source.choice([row, row, row, reject, other])
        extra = {"event_ms": NOW - source.randint(0, 30_000), "_position_major": source.randint(0, 20)}
        kinds[(row, reject, other).index(make)].append(make(offset, partition, **(extra if make is row else {})))
    return kinds


def batches(source: random.Random, partitions: int, begins: int) -> list[Section]:
    """Give the sections of one refine instance that reads from an offset to the end."""
    at, prev, made = dict.fromkeys(range(partitions), begins), {}, []
    while any(offset < COUNT for offset in at.values()):
        parts: tuple[list, list, list] = ([], [], [])
        for partition in range(partitions):
            high = min(COUNT, at[partition] + source.randint(0, 5))
            for part, found in zip(parts, records(partition, at[partition], high), strict=True):
                part.extend(found)
            at[partition] = high
        made.append(section(*parts, prev=dict(prev)))
        prev |= {(TOPIC, partition): offset - 1 for partition, offset in at.items() if offset > begins}
    return made


@given(st.integers(0, 10**6), st.integers(1, 3))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_batches_replays_and_restarts_give_the_same_tables(seed: int, partitions: int) -> None:
    source = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        stream = tables(lake, max_rows=source.choice([3, 1000]))
        for begins in (0, source.randint(0, COUNT - 1), 0):  # a run, a replay of its end, a replay of everything
            refs = write(lake, *batches(source, partitions, begins))
            refs += source.choices(refs, k=3)
            while refs:
                call = [refs.pop(0) for _ in range(min(len(refs), source.randint(1, 4)))]
                source.shuffle(call)
                stream.commit(call, gaps=no_gaps, now_ms=NOW)
                if source.random() < 0.3:
                    stream = tables(lake)
        expected = [records(partition, 0, COUNT) for partition in range(partitions)]
        assert offsets(lake) == [(p, r["_offset"]) for p, (rows, _, _) in enumerate(expected) for r in rows]
        assert offsets(lake, "orders_quarantine") == [
            (p, r["_offset"]) for p, (_, bad, _) in enumerate(expected) for r in bad
        ]
        stream.prepare()
        state = stream.anchor.state()
        assert state is not None and state.counts["read"] == COUNT * partitions
        if partitions == 1:
            whole = verdicts_of_one_commit()
            assert values(lake, "_offset, _late, _lateness_ms, _resent") == whole


def verdicts_of_one_commit() -> list:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        tables(lake).commit(write(lake, section(*records(0, 0, COUNT))), gaps=no_gaps, now_ms=NOW)
        return values(lake, "_offset, _late, _lateness_ms, _resent")


@given(st.integers(0, 10**6))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_windows_that_fire_in_the_wrong_order_are_refused_not_lost(seed: int) -> None:
    source = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        stream = tables(lake)
        refs = write(lake, *batches(source, 2, 0))
        waiting = list(refs)
        source.shuffle(waiting)
        for _ in range(len(refs)):  # a refused section stays for the next round: the job that failed starts again
            for ref in list(waiting):
                try:
                    stream.commit([ref], gaps=no_gaps, now_ms=NOW)
                except GapFound:
                    continue
                waiting.remove(ref)
        assert waiting == []
        expected = [r["_offset"] for p in (0, 1) for r in records(p, 0, COUNT)[0]]
        assert [offset for _, offset in offsets(lake)] == expected

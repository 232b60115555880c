"""What Flink's watermark is told: the slowest partition that is not idle."""

from __future__ import annotations

from jobs.event_clock import EventClock
from lakehouse.segments import Range


def said(partition: int, time_ms: int | None) -> Range:
    return Range("t", partition, None, 0, 0, 1, time_ms)


def test_it_is_the_slowest_partitions_highest_time() -> None:
    clock = EventClock(1_000, lambda: 0.0)
    assert clock.read([said(0, 100), said(1, 50)]) == 50
    assert clock.read([said(0, 90)]) == 50, "a partition's time does not go back"
    assert clock.read([said(1, 200)]) == 100


def test_an_idle_partition_holds_nothing_back() -> None:
    now = [0.0]
    clock = EventClock(1_000, lambda: now[0])
    clock.read([said(0, 100), said(1, 50)])
    now[0] = 1.5
    assert clock.read([said(0, 120)]) == 120


def test_records_without_event_time_move_nothing() -> None:
    clock = EventClock(1_000, lambda: 0.0)
    assert clock.read([said(0, None)]) == 0
    assert clock.read([said(0, 70), said(1, None)]) == 70

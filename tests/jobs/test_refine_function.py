"""The lines that refine hands to the SQL statements."""

from __future__ import annotations

from jobs.event_clock import EventClock
from jobs.refine_function import line_of
from lakehouse.segments import Range, SectionRef


def line(*event_times: int | None) -> list[str]:
    ranges = tuple(Range("t", number, None, 0, 9, 10, time) for number, time in enumerate(event_times))
    return line_of(SectionRef("users", "segment", 0, 10, ranges, 10), EventClock(1_000)).split("\t")


def test_a_section_says_the_event_time_of_its_slowest_partition() -> None:
    assert line(5, None, 7)[:2] == ["users", "5"]


def test_a_section_without_accepted_rows_still_has_a_number_for_its_event_time() -> None:
    stream, event_time, reference = line(None)
    assert (stream, event_time) == ("users", "0")
    assert SectionRef.from_text(reference).ranges[0].max_event_time_ms is None

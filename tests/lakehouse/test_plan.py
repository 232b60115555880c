"""Any way in which sections repeat, overlap and arrive gives every offset once, or is refused."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.errors import GapFound, RetentionLoss
from lakehouse.plan import Partition, Step, plan
from lakehouse.segments import Range, SectionRef

PARTITIONS = [("a", 0), ("a", 1), ("b", 0)]
COUNT = 30  # records of each partition


def ref(*ranges: Range) -> SectionRef:
    return SectionRef("s", "p", 0, 0, ranges, sum(r.records for r in ranges))


def span(first: int, last: int, prev: int | None = None, partition: Partition = ("a", 0)) -> Range:
    return Range(*partition, prev, first, last, last - first + 1)


def never(topic: str, partition: int, after: int, before: int) -> bool:
    return False


def always(topic: str, partition: int, after: int, before: int) -> bool:
    return True


def sections_of(source: random.Random) -> list[SectionRef]:
    """Give what one or two refine instances say that read all partitions in batches of their own; some of it twice."""
    sections: list[SectionRef] = []
    for instance in range(source.randint(1, 2)):
        at = {p: source.randint(0, 5) if instance else 0 for p in PARTITIONS}
        prev: dict[Partition, int] = {}
        while any(offset < COUNT for offset in at.values()):
            ranges = []
            for partition in PARTITIONS:
                last = min(at[partition] + source.randint(0, 9) - 1, COUNT - 1)
                if last >= at[partition]:
                    ranges.append(span(at[partition], last, prev.get(partition), partition))
                    prev[partition], at[partition] = last, last + 1
            sections += [ref(*ranges)] if ranges else []
    sections += source.choices(sections, k=source.randint(0, 5))
    source.shuffle(sections)
    return sections


def applied(steps: Sequence[Step], partition: Partition) -> list[int]:
    """Give the offsets of a partition in the order in which the steps apply them."""
    covered = [(r, step.cuts[partition]) for step in steps for r in step.ranges if (r.topic, r.partition) == partition]
    return [offset for r, cut in covered for offset in range(max(r.first, cut + 1), r.last + 1)]


@given(st.integers(0, 2**32).map(random.Random))
@settings(max_examples=200)
def test_all_sections_in_any_order_give_every_offset_once_and_ascending(source: random.Random) -> None:
    steps = plan(sections_of(source), {}, never)
    assert all(applied(steps, partition) == list(range(COUNT)) for partition in PARTITIONS)


@given(st.integers(0, 2**32).map(random.Random))
@settings(max_examples=200)
def test_losing_a_section_is_refused_or_made_good_never_unseen(source: random.Random) -> None:
    kept = [section for section in sections_of(source) if source.random() < 0.8]
    try:
        steps = plan(kept, dict.fromkeys(PARTITIONS, -1), always)
    except GapFound:
        return
    for partition in PARTITIONS:
        got = applied(steps, partition)
        assert got == list(range(len(got)))


def test_what_is_applied_already_is_not_even_read() -> None:
    assert plan([ref(span(0, 9))], {("a", 0): 9}, never) == []


def test_a_partition_begins_where_its_first_section_begins() -> None:
    (step,) = plan([ref(span(500, 509))], {}, always)
    assert step.whole and step.lasts() == {("a", 0): 509}


def test_a_section_that_says_one_came_before_it_cannot_begin_a_partition() -> None:
    with pytest.raises(GapFound, match="up to the beginning"):
        plan([ref(span(10, 19, prev=9))], {}, never)


def test_what_was_handed_on_before_is_lost_whatever_kafka_still_has() -> None:
    with pytest.raises(GapFound):
        plan([ref(span(10, 19, prev=7))], {("a", 0): 5}, never)


def test_sections_that_wait_for_each_other_are_applied_by_partition() -> None:
    x, y = ("a", 0), ("a", 1)
    one = ref(span(0, 4, None, x), span(5, 9, 4, y))
    two = ref(span(5, 9, 4, x), span(0, 4, None, y))
    steps = plan([one, two], {}, never)
    assert [(step.ref, dict(step.cuts)) for step in steps] == [(one, {x: -1}), (two, {x: 4, y: -1}), (one, {y: 4})]


@pytest.mark.parametrize(
    "covered",
    [
        pytest.param(span(8, 9), id="before the first section of a reader"),
        pytest.param(span(8, 9, prev=4), id="between two sections of one reader"),
        pytest.param(Range("a", 0, 4, 5, 9, 3), id="inside a section"),
    ],
)
def test_offsets_left_out_that_kafka_no_longer_holds_are_a_loss(covered: Range) -> None:
    with pytest.raises(RetentionLoss, match=r"offsets 5 to 7 were deleted before they were read.*--accept-loss "):
        plan([ref(covered)], {("a", 0): 4}, never, lambda topic, partition: 8)


def test_offsets_left_out_that_kafka_still_holds_are_markers() -> None:
    assert plan([ref(span(8, 9, prev=4))], {("a", 0): 4}, never, lambda topic, partition: 5)


def test_what_was_read_before_kafka_deleted_it_is_no_loss() -> None:
    assert plan([ref(span(5, 9, prev=4))], {("a", 0): 4}, never, lambda topic, partition: 100)

"""What a killed connector sends again is flagged by position, and only that."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.groups import NONE, Groups
from lakehouse.resent import Position, compose_minor, judge_resent

A = ("t", 0)
Pair = tuple[int, int]


def judged(
    rows: list[Pair], highest: Position | None = None, skipped: frozenset[int] = frozenset()
) -> tuple[list[bool], Position | None]:
    major = np.array([major for major, _ in rows], np.int64)
    minor = np.array([minor for _, minor in rows], np.int64)
    flags = np.array([index not in skipped for index in range(len(rows))], np.bool_)
    groups = Groups((A,), (0, len(rows)), None) if rows else Groups((), (0,), None)
    resent, after = judge_resent(major, minor, flags, groups, {A: highest} if highest else {})
    return resent.tolist(), after.get(A)


def test_a_position_that_is_not_above_the_highest_before_it_is_resent() -> None:
    assert judged([(1, 1), (1, 2), (1, 2), (1, 1), (2, 0), (1, 9)]) == ([False, False, True, True, False, True], (2, 0))


def test_the_highest_position_before_the_batch_counts() -> None:
    assert judged([(5, 5), (5, 6)], (5, 5)) == ([True, False], (5, 6))


def test_the_two_halves_of_a_key_change_share_a_position_and_are_told_apart() -> None:
    minor = compose_minor(np.array([7, 7, 7, 7]), np.array([False, True, False, True])).tolist()
    assert judged([(3, m) for m in minor])[0] == [False, False, True, True]


def test_rows_that_are_not_judged_raise_nothing() -> None:
    assert judged([(3, 3), (9, 9), (4, 4)], skipped=frozenset({1})) == ([False, False, False], (4, 4))


numbers = st.integers(0, 5)


@given(st.lists(st.tuples(numbers, numbers), max_size=25), st.integers(0, 25))
def test_the_verdict_is_the_one_of_the_definition_however_the_rows_are_split(rows: list[Pair], cut: int) -> None:
    expected, highest = [], (NONE, NONE)
    for major, minor in rows:
        position = (major, minor)
        expected.append(position <= highest)
        highest = max(highest, position)
    assert judged(rows)[0] == expected
    first, between = judged(rows[:cut])
    assert first + judged(rows[cut:], between)[0] == expected

"""The highest position that a partition had brought before given offsets, whatever the order in which rows are read."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.groups import NONE
from lakehouse.highest import HighestBefore, positions
from lakehouse.order import stands_above

ROWS = st.lists(
    st.tuples(
        st.integers(0, 20),
        st.one_of(st.none(), st.integers(0, 5)),
        st.integers(0, 5),
        st.sampled_from([None, '{"id": 1}']),
        st.sampled_from([None, "incremental"]),
    ),
    max_size=12,
)
NAMES = ["_offset", "_position_major", "_position_minor", "_previous_key", "_snapshot"]


def table(rows: list[tuple[int, int | None, int, str | None, str | None]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(NAMES)
    kinds = [pa.int64(), pa.int64(), pa.int64(), pa.string(), pa.string()]
    return pa.table([pa.array(own, kind) for own, kind in zip(columns, kinds, strict=True)], NAMES)


@given(st.lists(st.integers(0, 21), min_size=1, max_size=6, unique=True), st.lists(ROWS, max_size=3))
def test_each_offset_gets_the_highest_position_below_it(asked: list[int], parts: list[list]) -> None:  # type: ignore[type-arg]
    asked.sort()
    found = HighestBefore(np.array(asked)).take(map(table, parts)).below
    counted = [row for part in parts for row in part if row[1] is not None and row[4] is None]
    for offset, own in zip([*asked, 99], found.tolist(), strict=True):
        below = [(major, minor * 2 + (key is not None)) for at, major, minor, key, _ in counted if at < offset]
        assert tuple(own) == max(below, default=(NONE, NONE))


def test_a_position_that_came_before_is_not_above() -> None:
    rows = positions(table([(0, 5, 5, None, None), (1, 5, 6, None, None), (2, 6, 0, None, None)]))
    assert stands_above(rows, np.full((3, 2), [5, 12])).tolist() == [False, False, True]
    assert stands_above(rows, np.full((3, 2), NONE)).all()

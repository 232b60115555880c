"""Tables partitioned by a column: a row that moves to another partition is in one of them only."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lakehouse.commit import StreamTables
from lakehouse.lake import Lake
from tests.lakehouse.rows import NOW, no_gaps, section, tables, write
from tests.lakehouse.state.source import contract
from tests.lakehouse.state.test_snapshots import change, read
from tests.lakehouse.state.test_state_laws import held


def commit(stream: StreamTables, lake: Lake, rows: list[dict[str, Any]], now_ms: int) -> None:
    stream.commit(write(lake, section(rows, of=stream.contract)), gaps=no_gaps, now_ms=now_ms)


@pytest.mark.parametrize("soft", [False, True])
def test_a_row_that_moves_between_partitions_is_in_one(lake: Lake, soft: bool) -> None:
    of = dataclasses.replace(contract(soft_deletes=soft), partition_by=("n",))
    stream = tables(lake, of)
    commit(stream, lake, [change(k, k, 10 + k, n=k % 2, body=f"b{k}") for k in range(4)], NOW)
    moved = [change(4, 0, 20, _op="u", n=1, _unset=["body"]), change(5, 1, 21, _op="u", n=None, body="x")]
    commit(stream, lake, moved, NOW)
    assert held(lake, "docs", "id, n, body") == [(0, 1, "b0"), (1, None, "x"), (2, 0, "b2"), (3, 1, "b3")]
    assert held(lake, "docs_history", "id, n, body, _is_current", "id < 2") == [
        (0, 0, "b0", False), (0, 1, "b0", True), (1, 1, "b1", False), (1, None, "x", True),
    ]  # fmt: skip
    commit(stream, lake, [change(6, 0, 30, _op="d", n=None), change(7, 1, 31, _op="u", n=0, body="y")], NOW)
    assert held(lake, "docs", "id, n, body", "_deleted IS NOT TRUE" if soft else "true") == [
        (1, 0, "y"), (2, 0, "b2"), (3, 1, "b3"),
    ]  # fmt: skip


@pytest.mark.parametrize("late", [False, True])
def test_a_row_that_moves_between_leaves_of_its_table_stays(local: Lake, late: bool) -> None:
    # Its snapshot comes twice, from the parent and from the leaf; moving it is a delete and a create in two topics.
    parent, one, other = ({"_topic": f"shop.docs{name}"} for name in ("", "_1", "_2"))
    of = dataclasses.replace(contract(), topics=tuple(topic["_topic"] for topic in (parent, one, other)))
    stream = tables(local, of)
    twice = [read(0, 1, 5) | parent, read(0, 1, 5) | one, read(1, 2, 5) | parent, read(1, 2, 5) | one]
    gone = change(2, 1, 20, _op="d", n=None, _position_major=19) | one
    moved = change(0, 1, 21, n=2, _position_major=19) | other
    commit(stream, local, twice, NOW)
    for row in (moved, gone) if late else (gone, moved):
        commit(stream, local, [row], NOW)
    assert held(local, "docs", "id, n, _topic", "id = 1") == [(1, 2, "shop.docs_2")]
    assert held(local, "docs_history", "id, n, _is_current") == [(1, 1, False), (1, 2, True), (2, 1, True)]

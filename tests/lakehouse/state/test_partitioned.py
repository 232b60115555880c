"""Tables partitioned by a column: a row that moves to another partition is in one of them only."""

from __future__ import annotations

import dataclasses

import pytest

from lakehouse.lake import Lake
from tests.lakehouse.rows import NOW, tables
from tests.lakehouse.state.source import contract
from tests.lakehouse.state.test_snapshots import change, commit
from tests.lakehouse.state.test_state_laws import held


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

"""A column that only a change in quarantine said is not taken for what it was before."""

from __future__ import annotations

from typing import Any

import pytest

from lakehouse.commit import StreamTables
from lakehouse.lake import Lake
from lakehouse.segments import Range
from tests.lakehouse.rows import NOW, no_gaps, section, tables, write
from tests.lakehouse.state.source import TOPIC, contract
from tests.lakehouse.state.test_snapshots import change
from tests.lakehouse.state.test_state_laws import held


def commit(lake: Lake, stream: StreamTables, *rows: dict[str, Any]) -> None:
    kept, apart = ([row for row in rows if ("_kind" in row) is is_apart] for is_apart in (False, True))
    offsets = [row["_offset"] for row in rows]
    ranges = [Range(TOPIC, 0, min(offsets) - 1 if min(offsets) else None, min(offsets), max(offsets), len(rows))]
    made = section(kept, of=stream.contract, ranges=ranges, withheld=apart)
    stream.commit(write(lake, made), gaps=no_gaps, now_ms=NOW)


@pytest.mark.parametrize("together", [False, True])
def test_a_row_stays_stale_until_the_column_is_said_again(local: Lake, together: bool) -> None:
    stream = tables(local, contract())
    refused = change(1, 1, 20, _op="u", _kind="rejected", _unset=["notes"])
    after = change(2, 1, 30, _op="u", n=2, _unset=["body", "notes"])
    commit(local, stream, change(0, 1, 10, body="old", notes="old"))
    for rows in [[refused, after]] if together else [[refused], [after]]:
        commit(local, stream, *rows)
    assert held(local, "docs", "n, body, _stale") == [(2, "old", True)]
    commit(local, stream, change(3, 1, 40, _op="u", n=3, notes="new", _unset=["body"]))
    assert held(local, "docs", "n, notes, _stale") == [(3, "new", True)]
    commit(local, stream, change(4, 1, 50, _op="u", n=4, body="new", _unset=["notes"]))
    assert held(local, "docs", "n, body, notes, _stale") == [(4, "new", "new", False)]


def test_a_change_that_says_all_that_the_refused_one_did_overtakes_it(local: Lake) -> None:
    stream = tables(local, contract())
    refused = change(1, 1, 20, _op="u", _kind="rejected", _unset=["body", "notes"])
    commit(local, stream, change(0, 1, 10, body="old", notes="old"))
    commit(local, stream, refused)
    assert held(local, "docs", "_stale") == [(True,)]
    commit(local, stream, change(2, 1, 30, _op="u", n=2, _unset=["body", "notes"]))
    assert held(local, "docs", "n, body, notes, _stale") == [(2, "old", "old", False)]

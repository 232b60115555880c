"""A column that only a change in quarantine said is not taken for what it was before, nor one that left the filter."""

from __future__ import annotations

from typing import Any

import pytest

from lakehouse.commit import StreamTables
from lakehouse.lake import Lake
from lakehouse.segments import Range
from tests.lakehouse.rows import NOW, no_gaps, section, tables, write
from tests.lakehouse.state.source import TOPIC, Source, contract
from tests.lakehouse.state.test_landing import as_reject, land
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


def renamed(offset: int, before: int, after: int, position: int, **values: Any) -> list[dict[str, Any]]:
    """Give the delete and the create of a key change."""
    gone = change(offset, before, position, _op="d", _next_key=f'{{"id": {after}}}')
    return [gone, change(offset + 1, after, position, _previous_key=f'{{"id": {before}}}', **values)]


@pytest.mark.parametrize("together", [False, True])
def test_a_key_change_takes_over_what_is_hidden(local: Lake, together: bool) -> None:
    stream = tables(local, contract())
    refused = change(1, 1, 20, _op="u", _kind="rejected", _unset=["notes"])
    steps = [[refused], renamed(2, 1, 2, 30, n=2, _unset=["body", "notes"]), renamed(4, 2, 3, 40, n=3, _unset=["body"])]
    commit(local, stream, change(0, 1, 10, body="old", notes="old"))
    for rows in [[row for step in steps for row in step]] if together else steps:
        commit(local, stream, *rows)
    assert held(local, "docs", "id, n, body, _stale, _pending") == [(3, 3, "old", True, None)]
    commit(local, stream, change(6, 3, 50, _op="u", n=4, notes="new", _unset=["body"]))
    assert held(local, "docs", "n, body, _stale") == [(4, "old", True)]
    commit(local, stream, change(7, 3, 60, _op="u", n=5, body="new", _unset=["notes"]))
    assert held(local, "docs", "n, body, _stale") == [(5, "new", False)]


def test_a_key_change_hides_nothing_that_it_says_itself(local: Lake) -> None:
    stream = tables(local, contract())
    refused = change(1, 1, 20, _op="u", _kind="rejected", _unset=["notes"])
    commit(local, stream, change(0, 1, 10, body="old", notes="old"), refused)
    commit(local, stream, *renamed(2, 1, 2, 30, n=2, body="new", _unset=["notes"]))
    assert held(local, "docs", "id, body, notes, _stale") == [(2, "new", "old", False)]


def test_what_was_hidden_over_a_key_change_is_there_once_it_is_repaired(local: Lake) -> None:
    source = Source(0, contract())
    stream = tables(local, source.contract)
    refused = change(1, 1, 20, _op="u", body="new", _kind="rejected", _unset=["notes"])
    ranges = [Range(TOPIC, 0, None, 0, 1, 2)]
    rows = [change(0, 1, 10, body="old", notes="old")]
    made = section(rows, [as_reject(source, refused)], of=source.contract, ranges=ranges, withheld=[refused])
    stream.commit(write(local, made), gaps=no_gaps, now_ms=NOW)
    commit(local, stream, *renamed(2, 1, 2, 30, n=2, _unset=["body", "notes"]))
    assert held(local, "docs", "id, body, notes, _stale") == [(2, "old", "old", True)]
    land(source, local, [refused])
    assert held(local, "docs", "id, body, notes, _stale") == [(2, "new", "old", False)]
    assert held(local, "docs_history", "id, body, notes") == [(1, "new", "old"), (1, "old", "old"), (2, "new", "old")]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_a_row_comes_back_through_the_filter_with_what_it_had(local: Lake, together: bool, soft: bool) -> None:
    stream = tables(local, contract(soft_deletes=soft))
    leaves = change(1, 1, 20, _op="u", _kind="filtered", _unset=["body"])  # says the notes, which are kept nowhere
    back = change(2, 1, 30, _op="u", n=3, _unset=["body", "notes"])
    commit(local, stream, change(0, 1, 10, body="old", notes="old"))
    for rows in [[leaves, back]] if together else [[leaves], [back]]:
        commit(local, stream, *rows)
    assert held(local, "docs", "n, body, notes, _stale, _pending") == [(3, "old", None, False, ["notes"])]
    assert held(local, "docs_history", "n, body, notes", "_is_current") == [(3, "old", None)]
    commit(local, stream, change(3, 1, 40, _op="u", n=4, notes="new", _unset=["body"]))
    assert held(local, "docs", "n, body, notes, _pending") == [(4, "old", "new", None)]


def test_a_change_that_waits_outside_of_the_filter_hides_what_it_said_when_the_row_comes_back(local: Lake) -> None:
    stream = tables(local, contract())
    commit(local, stream, change(0, 1, 10, body="old", notes="old"))
    commit(local, stream, change(1, 1, 20, _op="u", _kind="filtered", _unset=["body", "notes"]))
    commit(local, stream, change(2, 1, 30, _op="u", _kind="rejected", _unset=["notes"]))
    commit(local, stream, change(3, 1, 40, _op="u", n=4, _unset=["body", "notes"]))
    assert held(local, "docs", "n, body, notes, _stale, _pending") == [(4, "old", "old", True, None)]

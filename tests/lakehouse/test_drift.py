"""_tidegate/drift: what is news is appended, by however many workers notice it; what was said last is not repeated."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from lakehouse.drift import DRIFT, TABLE, read_drift, record_drift
from lakehouse.errors import LakehouseError
from lakehouse.lake import Lake


def note(kind: str = "column_added", column: str | None = "age", second: int = 0, **rest: Any) -> dict[str, Any]:
    """Give a note of the stream `users`."""
    place = {"topic": "t", "partition": 0, "offset": second}
    return {"seen_at": datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC), "stream": "users", "kind": kind,
            "column": column, **place, **rest}  # fmt: skip


def test_nothing_is_told_where_nothing_drifted(lake: Lake) -> None:
    assert read_drift(lake) == []
    assert record_drift(lake, []) == 0


def test_notes_come_back_newest_first_with_all_columns(lake: Lake) -> None:
    assert record_drift(lake, [note(after="integer", schema_id=7)]) == 1
    assert record_drift(lake, [note("truncate_seen", None, 1)]) == 1
    newest, oldest = read_drift(lake)
    assert list(newest) == DRIFT.names
    assert (newest["kind"], oldest["kind"]) == ("truncate_seen", "column_added")
    assert (oldest["after"], oldest["schema_id"], oldest["offset"]) == ("integer", 7, 0)
    assert len(read_drift(lake, newest=1)) == 1


def test_what_was_said_last_of_a_column_is_not_said_again(lake: Lake) -> None:
    assert record_drift(lake, [note(), note()]) == 1
    assert record_drift(lake, [note(second=1), note(column="name", second=1)]) == 1
    assert record_drift(lake, [note("column_dropped", second=2)]) == 1
    assert record_drift(lake, [note(second=3)]) == 1, "the column came back"


def test_workers_that_notice_the_same_at_once_say_it_once(lake: Lake) -> None:
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda n: record_drift(lake, [note(second=n)]), range(4)))
    assert sum(said) == len(read_drift(lake)) == 1


def test_a_lake_that_cannot_be_written_is_said(local: Lake) -> None:
    local.put(TABLE, b"a file where the table's folder must be")
    with pytest.raises(LakehouseError):
        record_drift(local, [note()])

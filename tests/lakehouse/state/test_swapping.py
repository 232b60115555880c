"""A version takes the place of a stream's tables, one commit a table: whatever was killed in between, done again all of
them are the version's, and the job goes on from there."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from deltalake import DeltaTable

from contracts.model import Contract, Storage
from lakehouse.errors import NotBegun, SwapRefused
from lakehouse.lake import Lake
from lakehouse.merge.merge_table import MergeTable
from lakehouse.swapping import Swapped, swap, take_columns
from tests.lakehouse.rows import NOW, no_gaps, section, tables, write
from tests.lakehouse.state.source import Row, contract
from tests.lakehouse.state.test_landing import change
from tests.lakehouse.state.test_state_laws import Crash, held

ALL = ["docs_quarantine", "docs_changes", "_tidegate/memory/docs", "docs_history", "docs"]


def version_of(of: Contract) -> Contract:
    return dataclasses.replace(of, stream=f"{of.stream}__v2")


def commit(lake: Lake, of: Contract, rows: list[Row]) -> None:
    tables(lake, of).commit(write(lake, section(rows, of=of)), gaps=no_gaps, now_ms=NOW)


def told(_table: str, _done: int, _of: int) -> None:
    pass


def swapped(lake: Lake, of: Contract, **options: Any) -> list[Swapped]:
    return swap(lake, of, version_of(of), "test", told, **options)


def filled(lake: Lake, of: Contract) -> None:
    """Commit changes of two keys; the version has other values of n, and one change more."""
    rows = [change(0, 1), change(1, 2), change(2, 1), change(3, 2, _op="d")]
    commit(lake, of, rows)
    commit(lake, version_of(of), [{**row, "n": row["n"] + 100} for row in (*rows, change(4, 3))])


def ids(lake: Lake) -> list[str]:
    return [str(DeltaTable(lake.table_uri(name)).metadata().id) for name in ALL]


def test_the_tables_are_the_versions_and_the_job_goes_on(local: Lake, storage: Storage) -> None:
    of = contract(storage=storage)
    filled(local, of)
    before = ids(local)
    done = swapped(local, of)
    assert [(one.table, one.already) for one in done] == [(name, False) for name in ALL]
    assert ids(local) == before
    assert held(local, "docs", "id, n") == [(1, 102), (3, 104)]
    assert held(local, "docs_changes", "_offset, n") == [(n, 100 + n) for n in range(5)]
    commit(local, of, [change(4, 3), change(5, 1), change(6, 2)])
    assert held(local, "docs", "id, n") == [(1, 5), (2, 6), (3, 104)]
    assert held(local, "docs_changes", "count(*)") == [(7,)]
    assert held(local, "docs_history", "count(*)", "_is_current") == [(3,)]


@pytest.mark.parametrize("killed", range(len(ALL)))
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_a_table_a_second_call_goes_on(local: Lake, killed: int, after: bool) -> None:
    of = contract()
    filled(local, of)
    replace_all = MergeTable.replace_all

    def crashing(table: MergeTable, *of: Any, **options: Any) -> None:
        if table.name != ALL[killed] or after:
            replace_all(table, *of, **options)
        if table.name == ALL[killed]:
            raise Crash

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
        patch.setattr(MergeTable, "replace_all", crashing)
        swapped(local, of)
    done = swapped(local, of)
    assert [one.already for one in done] == [n < killed + after for n in range(len(ALL))]
    assert held(local, "docs", "id, n") == [(1, 102), (3, 104)]
    assert held(local, "docs_changes", "count(*)") == [(5,)]
    assert all(one.already for one in swapped(local, of))
    commit(local, of, [change(4, 3), change(5, 1)])
    assert held(local, "docs", "id, n") == [(1, 5), (3, 104)]


def test_a_version_that_is_behind_is_refused(local: Lake) -> None:
    of = contract()
    filled(local, of)
    commit(local, of, [change(4, 3), change(5, 1)])
    with pytest.raises(SwapRefused, match="partition 0 up to offset 5, its version up to 4"):
        swapped(local, of)
    commit(local, of, [change(0, 1, _partition=1)])
    commit(local, version_of(of), [change(5, 1)])
    with pytest.raises(SwapRefused, match="partition 1, its version does not"):
        swapped(local, of)
    assert held(local, "docs", "id, n", "id = 3") == [(3, 4)]


def test_records_from_before_a_version_are_let_go_only_when_told_so(local: Lake) -> None:
    of = contract()
    commit(local, of, [change(0, 1), change(1, 2)])
    commit(local, version_of(of), [change(1, 2)])
    with pytest.raises(SwapRefused, match="from offset 0 on, the version from offset 1 on"):
        swapped(local, of)
    swapped(local, of, accept_loss=True)
    assert held(local, "docs_changes", "_offset") == [(1,)]


def test_a_version_that_was_never_filled_is_refused(local: Lake) -> None:
    commit(local, contract(), [change(0, 1)])
    with pytest.raises(NotBegun, match="docs__v2"):
        swapped(local, contract())


def test_columns_that_a_version_gained_by_itself_go_with_it(local: Lake) -> None:
    take_columns(local, "docs", {"more": "text"})
    take_columns(local, "docs", {"more": "text"})
    with pytest.raises(SwapRefused, match="more with another type"):
        take_columns(local, "docs", {"more": "bigint"})

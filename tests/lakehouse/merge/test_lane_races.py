"""Lanes that commit to one table at the same time: no commit is lost, and who loses the race puts the same one again,
without reading or writing rows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from contracts.model import Storage
from lakehouse.lake import Lake
from lakehouse.lanes import Lane, lane_numbers, lanes
from lakehouse.merge import marking
from lakehouse.merge import merge_table as module
from lakehouse.merge.compaction import slices
from lakehouse.merge.keys import keys_of
from lakehouse.merge.merge_table import MergeTable
from lakehouse.merge.reading import FileReader
from lakehouse.progress import Writer
from lakehouse.shape import TableShape
from lakehouse.table import Contested
from tests.lakehouse.merge.tables import COLUMNS, KIND, NOTHING, by_deltalake, merge_table, rows, state

BOTH = pytest.mark.parametrize("storage", list(Storage))


def in_lane(lake: Lake, lane: Lane, storage: Storage = Storage.MERGE_ON_READ) -> MergeTable:
    shape = TableShape("t", COLUMNS, (), ("id",), {}, storage)
    table = MergeTable(lake, KIND, shape, Writer("p", lane=lane), keys=["id"])
    assert table.open()
    return table


def own(lane: Lane, ids: range) -> list[int]:
    numbers = lane_numbers(keys_of([rows(ids)["id"]]), lane.of)
    return [i for i, number in zip(ids, numbers.tolist(), strict=True) if number == lane.number]


def begun(lake: Lake, count: int = 40, storage: Storage = Storage.MERGE_ON_READ) -> None:
    """Make a table with one file that no lane claims: row i of it has the id i."""
    merge_table(lake, storage=storage).commit(rows(range(count)), NOTHING, {}, state())


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is read and written of data files."""
    told: list[str] = []

    def noted(what: str, verb: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*of: Any, **named: Any) -> Any:
            told.append(what)
            return verb(*of, **named)

        return noting

    monkeypatch.setattr(FileReader, "read", noted("read", FileReader.read))
    monkeypatch.setattr(module, "write_files", noted("write", module.write_files))
    monkeypatch.setattr(marking, "pack", noted("pack", marking.pack))
    return told


def test_a_commit_that_lost_the_race_is_put_again_as_it_is(local: Lake, data: list[str]) -> None:
    begun(local)
    one, other = (in_lane(local, lane) for lane in lanes(2))
    one.commit(rows([100]), NOTHING, {("topic", 0): 5}, state(1))
    data.clear()
    at = other.commit(rows([101]), NOTHING, {("topic", 0): 4}, state(2))
    assert (other.rebased, data) == (1, ["write"])
    assert by_deltalake(local) == [*range(40), 100, 101] and other.rows(at)["id"].to_pylist() == [101]
    assert [table.lane_progress([("topic", 0)], lane) for table in (other,) for lane in lanes(2)] == [
        {("topic", 0): 5},
        {("topic", 0): 4},
    ]
    assert {file.lane for file in other.files().values()} == {None, *lanes(2)}


def test_only_a_vector_that_another_lane_changed_is_united_and_written_again(local: Lake, data: list[str]) -> None:
    begun(local)
    one, other = (in_lane(local, lane) for lane in lanes(2))
    own_file = other.commit(rows([200, 201]), NOTHING, {}, state(1))
    one.open()
    one.commit(rows([]), np.array([3, 4]), {}, state(2))
    data.clear()
    other.commit(rows([]), np.array([7, int(own_file[0])]), {}, state(3))
    assert (other.rebased, data) == (1, ["write", "pack", "pack"])
    assert by_deltalake(local) == [*(i for i in range(40) if i not in (3, 4, 7)), 201]


@BOTH
def test_a_commit_whose_rows_were_moved_is_worked_out_again(local: Lake, storage: Storage) -> None:
    begun(local, storage=storage)
    one, other = (in_lane(local, lane, storage) for lane in lanes(2))
    one.rewrite([0])
    with pytest.raises(Contested):
        other.commit(rows([100]), np.array([7]), {}, state(2))
    assert other.open() and by_deltalake(local) == list(range(40))


def test_what_no_lane_did_is_never_passed_over(local: Lake) -> None:
    begun(local)
    lane, foreign = in_lane(local, Lane(1, 2)), merge_table(local)
    foreign.commit(rows([100]), NOTHING, {}, state(1))
    with pytest.raises(Contested):
        lane.commit(rows([101]), NOTHING, {}, state(2))
    lane.open()
    twin = in_lane(local, Lane(1, 2))
    twin.commit(rows([102]), NOTHING, {}, state(3))
    with pytest.raises(Contested):
        lane.commit(rows([101]), NOTHING, {}, state(2))


def test_a_compaction_wins_against_lanes_that_leave_its_files_alone_and_deals_rows_out(local: Lake) -> None:
    begun(local)
    one, other = (in_lane(local, lane) for lane in lanes(2))
    other.commit(rows([101]), NOTHING, {}, state(1))
    one.rewrite([0])
    assert one.rebased == 1 and by_deltalake(local) == [*range(40), 101]
    found: dict[Lane | None, list[int]] = {}
    for number, file in one.files().items():
        found.setdefault(file.lane, []).extend(one.scan(number, ["id"])["id"].to_pylist())
    assert {lane: sorted(ids) for lane, ids in found.items()} == {
        Lane(0, 2): own(Lane(0, 2), range(40)),
        Lane(1, 2): [*own(Lane(1, 2), range(40)), 101],
    }


def test_each_file_is_kept_by_one_lane(local: Lake) -> None:
    begun(local)
    tables = [in_lane(local, lane) for lane in lanes(3)]
    for number, table in enumerate(tables * 9):
        table.open()
        table.commit(rows([100 + number]), NOTHING, {}, state(number))
    for table in tables:
        table.open()
        chosen = [table.files()[n] for numbers in slices(table) for n in numbers]
        assert {file.lane for file in chosen} == {table.lane}
    keepers = [[table.keeps(file) for table in tables].count(True) for file in tables[0].files().values()]
    assert set(keepers) == {1}


@BOTH
def test_four_lanes_at_once_lose_no_commit(local: Lake, storage: Storage) -> None:
    begun(local, 400, storage)
    fleet, start, turns = lanes(4), Barrier(4), 12

    def work(lane: Lane) -> int:
        table = in_lane(local, lane, storage)
        live = dict.fromkeys(own(lane, range(400)))
        start.wait()
        for turn in range(turns):
            gone = list(live)[:: turns + 1]
            while True:
                files = {n: table.scan(n, ["id"])["id"].to_pylist() for n in table.files()}
                at = [(n << 32) + ids.index(i) for i in gone for n, ids in files.items() if i in ids]
                new = own(lane, range(1000 + turn * 20, 1020 + turn * 20))
                try:
                    table.commit(rows(new), np.array(at, np.int64), {("topic", 0): turn}, state(turn))
                    break
                except Contested:
                    table.open()
            for i in gone:
                del live[i]
            live |= dict.fromkeys(new)
        wanted.update(live)
        return table.rebased

    wanted: dict[int, None] = {}
    with ThreadPoolExecutor(4) as pool:
        rebased = list(pool.map(work, fleet))
    assert by_deltalake(local) == sorted(wanted)
    assert storage is Storage.COPY_ON_WRITE or sum(rebased) > 0
    whole = merge_table(local, storage=storage)
    assert [whole.lane_progress([("topic", 0)], lane) for lane in fleet] == [{("topic", 0): turns - 1}] * 4

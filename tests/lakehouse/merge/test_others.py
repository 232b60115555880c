"""Commits of others in between, races, and puts whose outcome is not what was reported."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import obstore
import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field, write_deltalake
from obstore.exceptions import GenericError

from contracts.model import Storage
from lakehouse.errors import LakehouseError, LakeUnavailable, OtherPipeline, RestoredTable, TableVanished, TableWentBack
from lakehouse.lake import Lake
from lakehouse.merge.merge_table import MergeTable
from lakehouse.table import Contested
from tests.lakehouse.merge.tables import (
    COLUMNS,
    NOTHING,
    Writer,
    by_deltalake,
    by_duckdb,
    by_location,
    log_of,
    merge_table,
    rows,
    state,
)


def delta(lake: Lake) -> DeltaTable:
    return DeltaTable(lake.table_uri("t"), storage_options=dict(lake.storage_options))


def append(lake: Lake) -> None:
    write_deltalake(delta(lake), rows([100, 101]), mode="append")


def delete(lake: Lake) -> None:
    delta(lake).delete("id = 4")


def optimize(lake: Lake) -> None:
    delta(lake).optimize.compact()


def add_column(lake: Lake) -> None:
    delta(lake).alter.add_columns([Field("extra", "string")])


@pytest.mark.parametrize(
    ("act", "others", "told"),
    [
        (append, [100, 101], (1, 0, 0)),
        (delete, [], (1, 1, 0)),  # delta-rs rewrites the file
        (optimize, [], (1, 2, 0)),
        (add_column, [], (0, 0, 0)),
    ],
)
def test_a_commit_of_others_is_met_and_then_followed(
    lake: Lake, act: Callable[[Lake], None], others: list[int], told: tuple[int, int, int]
) -> None:
    table = merge_table(lake)
    writer = Writer(table)
    writer.apply(range(5))
    writer.apply(range(5, 10), [0, 1])
    act(lake)
    before, version = dict(writer.live), table.version
    with pytest.raises(Contested):
        writer.apply([50], [2])
    assert (table.version, writer.live) == (version, before) and not table.news()
    table.open()
    news = table.news()
    assert (len(news.new), len(news.gone), len(news.changed)) == told
    assert not table.news()
    assert news.new <= table.files().keys() and not news.gone & table.files().keys()
    located = {i: at for i, at in before.items() if at >> 32 not in news.gone}
    for number in news.new:  # as an index follows
        dead = table.dead(number) or ()
        for position, i in enumerate(table.scan(number, ["id"])["id"].to_pylist()):
            if position not in dead:
                located[i] = (number << 32) + position
    writer.live = located
    writer.apply([50], [2])
    expected = sorted({*range(2, 10), 50, *others} - {2} - ({4} if act is delete else set()))
    assert by_deltalake(lake) == by_duckdb(lake) == by_location(table) == expected


def test_deletions_of_another_writer_are_told_as_changed_files(local: Lake) -> None:
    mine, theirs = merge_table(local), merge_table(local)
    found = mine.commit(rows(range(5)), NOTHING, {}, state())
    theirs.open()
    assert theirs.news().new == {0}
    theirs.commit(rows([]), found[:2], {}, state())
    with pytest.raises(Contested):
        mine.commit(rows([]), found[2:3], {}, state())
    mine.open()
    assert mine.news().changed == {0} and sorted(mine.dead(0) or ()) == [0, 1]
    mine.commit(rows([]), found[2:3], {}, state())
    assert by_deltalake(local) == [3, 4]


def test_what_came_and_went_between_two_looks_is_no_news(local: Lake) -> None:
    mine, theirs = merge_table(local), merge_table(local)
    found = theirs.commit(rows(range(5)), NOTHING, {}, state())
    theirs.commit(rows([]), found[:1], {}, state())
    mine.open()
    assert (mine.news().new, mine.news().changed) == ({0}, frozenset())
    theirs.commit(rows([7]), found, {}, state())
    gone = theirs.commit(rows([8]), NOTHING, {}, state())
    theirs.commit(rows([]), gone, {}, state())
    mine.open()
    news = mine.news()
    assert (len(news.new), news.gone, news.changed) == (1, {0}, frozenset())
    assert by_location(mine) == [7]


def test_a_table_that_another_process_created_meanwhile_is_opened(lake: Lake) -> None:
    tables = [merge_table(lake) for _ in range(2)]
    tables[1].create()
    assert tables[0].table_id == tables[1].table_id
    assert [next(iter(action)) for action in log_of(lake, 0)] == ["commitInfo", "protocol", "metaData"]


def test_of_racing_writers_each_row_is_there_once(lake: Lake, storage: Storage) -> None:
    merge_table(lake, storage=storage)
    errors: list[BaseException] = []

    def write(start: int) -> None:
        try:
            table = merge_table(lake, storage=storage)
            own = NOTHING
            for i in range(start, start + 20):  # each commit replaces the row of the commit before
                while True:
                    try:
                        own = table.commit(rows([i]), own, {("topic", start): i}, state(i))
                        break
                    except Contested:
                        table.open()
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=write, args=(start,)) for start in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert by_deltalake(lake) == by_duckdb(lake) == [19, 119, 219]
    table = merge_table(lake, storage=storage)
    assert table.version == 60
    assert table.progress([("topic", n) for n in (0, 100, 200)]) == {
        ("topic", 0): 19, ("topic", 100): 119, ("topic", 200): 219
    }  # fmt: skip


class Failing:
    """Puts commits as the object store does, but reports a failure: after the put, or instead of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
        self.failures = 0
        put = obstore.put

        def fail(store: Any, path: str, data: Any, **options: Any) -> Any:
            if options.get("mode") != "create":
                return put(store, path, data, **options)
            if after:
                put(store, path, data, **options)
            self.failures += 1
            raise GenericError("error sending request: connection reset")

        monkeypatch.setattr(obstore, "put", fail)


def test_a_put_that_succeeds_but_reports_failure_counts_as_made(
    lake: Lake, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = merge_table(lake, storage=storage)
    writer = Writer(table)
    writer.apply(range(5))
    with monkeypatch.context() as patched:
        failing = Failing(patched, after=True)
        writer.apply([5], [0])
        assert failing.failures == 1
    writer.apply([6], [5])
    assert by_deltalake(lake) == by_duckdb(lake) == by_location(table) == [1, 2, 3, 4, 6]


def test_a_put_that_fails_leaves_everything_as_it_was(
    lake: Lake, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = merge_table(lake, storage=storage)
    writer = Writer(table)
    writer.apply(range(5))
    with monkeypatch.context() as patched:
        Failing(patched, after=False)
        with pytest.raises(LakeUnavailable, match="commit to table t"):
            writer.apply([5], [0])
    assert table.version == 1 and by_location(table) == by_deltalake(lake) == [0, 1, 2, 3, 4]
    writer.apply([5], [0])
    assert by_deltalake(lake) == by_location(table) == [1, 2, 3, 4, 5]


def test_a_put_that_meets_its_own_first_try_counts_as_made(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    table = merge_table(local)
    put = obstore.put

    def twice(store: Any, path: str, data: Any, **options: Any) -> Any:
        if options.get("mode") == "create":
            put(store, path, data, **options)
        return put(store, path, data, **options)

    monkeypatch.setattr(obstore, "put", twice)
    table.commit(rows([1]), NOTHING, {}, state())
    assert table.version == 1 and by_deltalake(local) == by_location(table) == [1]


def test_a_commit_whose_outcome_was_unknown_is_found_by_the_next_open(
    local: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = merge_table(local)
    with monkeypatch.context() as patched:
        Failing(patched, after=True)
        patched.setattr(type(table._log), "read", _unanswered)
        with pytest.raises(LakehouseError):
            table.commit(rows([1]), NOTHING, {("topic", 0): 1}, state(1))
    table.open()
    assert table.progress([("topic", 0)]) == {("topic", 0): 1} and table.state() == state(1)
    assert len(table.news().new) == 1 and by_location(table) == [1]


def _unanswered(*asked: Any) -> Any:
    raise LakeUnavailable("no answer")


def test_a_table_that_vanished_or_went_back_is_never_taken_for_the_same(local: Lake) -> None:
    import shutil
    from pathlib import Path

    table = merge_table(local)
    table.commit(rows([1]), NOTHING, {}, state())
    folder = Path(local.table_uri("t"))
    shutil.copytree(folder, folder.parent / "old")
    table.commit(rows([2]), NOTHING, {}, state())
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "old", folder)
    with pytest.raises(TableWentBack, match="is at version 1, it was at version 2"):
        table.open()
    shutil.rmtree(folder)
    with pytest.raises(TableVanished, match="it was at version 2"):
        table.open()


def test_a_restored_table_and_one_of_another_pipeline_are_refused(local: Lake) -> None:
    table = merge_table(local)
    table.commit(rows([1]), NOTHING, {}, state())
    table.commit(rows([2]), NOTHING, {}, state())
    with pytest.raises(OtherPipeline):
        merge_table(local, pipeline="q").state()
    delta(local).restore(1)
    table.open()
    with pytest.raises(RestoredTable):
        table.state()


def test_files_of_others_without_statistics_are_deleted_from_rightly(local: Lake) -> None:
    table = merge_table(local)
    write_deltalake(delta(local), rows(range(10)), mode="append")
    import orjson

    path = "t/_delta_log/00000000000000000001.json"
    actions = log_of(local, 1)
    for action in actions:
        if "add" in action:
            action["add"].pop("stats")
    obstore.put(local.objects, path, b"\n".join(map(orjson.dumps, actions)))
    table.open()
    (number,) = table.news().new
    assert table.files()[number].rows is None and table.row_count(number) == 10
    table.commit(rows([]), np.array([number << 32, (number << 32) + 9]), {}, state())
    assert by_deltalake(local) == by_duckdb(local) == list(range(1, 9))


def test_rows_of_a_file_from_before_a_column_are_null_there(lake: Lake) -> None:
    table = merge_table(lake)
    old = table.commit(rows([1]), NOTHING, {}, state())
    wider = pa.schema([*COLUMNS, ("since", pa.timestamp("us")), ("tags", pa.list_(pa.string()))])
    evolved: MergeTable = merge_table(lake, wider)
    evolved.evolve()
    assert evolved.version == 2 and evolved.columns == wider
    evolved.evolve()
    assert evolved.version == 2
    again = evolved.commit(rows([2]), NOTHING, {}, state())
    assert evolved.rows(np.concatenate([again, again]), ["id", "tags"]).to_pydict() == {
        "id": [2, 2],
        "tags": [None] * 2,
    }
    fresh = merge_table(lake, wider)
    assert fresh.state() == state()
    assert len(fresh.rows(old)) == 1 and by_duckdb(lake, "id, since") == by_deltalake(lake, "id, since")
    protocol = next(action["protocol"] for action in log_of(lake, 2) if "protocol" in action)
    assert protocol["readerFeatures"] == protocol["writerFeatures"] == ["deletionVectors", "timestampNtz"]
    write_deltalake(delta(lake), pa.table({"id": [3]}), mode="append", schema_mode="merge")
    assert by_deltalake(lake) == [1, 2, 3]

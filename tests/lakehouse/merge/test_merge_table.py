"""Appending and deleting in one commit: every reader sees the same rows after each, and earlier versions stay."""

from __future__ import annotations

import tempfile
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.model import Storage
from lakehouse.lake import Lake
from tests.lakehouse.merge.tables import (
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

# A step: how many rows are appended, and which share of the live ones is removed.
STEPS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0.0, 0.1, 0.5, 1.0])), min_size=1, max_size=6)


@settings(max_examples=10, deadline=None)
@given(STEPS, st.randoms(use_true_random=False), st.booleans(), st.sampled_from(Storage))
def test_every_reader_sees_each_version_as_it_was_written(
    steps: list[tuple[int, float]],
    random: Random,
    partitioned: bool,
    storage: Storage,
) -> None:
    partition_by = ("region",) if partitioned else ()
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        table = merge_table(lake, partition_by=partition_by, storage=storage)
        writer, next_id = Writer(table), 0
        versions: dict[int, list[int]] = {0: []}
        for count, share in steps:
            removed = random.sample(sorted(writer.live), int(share * len(writer.live)))
            writer.apply(range(next_id, next_id + count), removed)
            next_id += count
            versions[table.version] = sorted(writer.live)
            assert by_deltalake(lake) == by_duckdb(lake) == by_location(table) == sorted(writer.live)
        fresh = merge_table(lake, partition_by=partition_by, storage=storage)
        assert by_location(fresh) == sorted(writer.live)
        for version, live in versions.items():
            assert by_deltalake(lake, version=version) == live


def test_a_commit_appends_deletes_and_keeps_the_books(lake: Lake, storage: Storage) -> None:
    table = merge_table(lake, storage=storage)
    writer = Writer(table)
    writer.apply(range(10))
    writer.apply([10, 11], [3, 4])
    live = [0, 1, 2, 5, 6, 7, 8, 9, 10, 11]
    assert table.version == 2
    assert by_deltalake(lake) == by_duckdb(lake) == by_location(table) == live
    assert table.progress([("topic", 0), ("topic", 1)]) == {("topic", 0): 2}
    assert table.state() == state(2)
    read = DeltaTable(lake.table_uri("t"), storage_options=dict(lake.storage_options))
    assert read.transaction_version("tidegate/p/topic/0/0") == 2
    newest = read.history(1)[0]
    assert newest["operation"] == "MERGE" and newest["tidegate"] == state(2).to_json()
    again = merge_table(lake, storage=storage)
    assert (again.version, again.state(), again.table_id) == (2, state(2), table.table_id)
    assert again.progress([("topic", 0)]) == {("topic", 0): 2}
    assert not again.news()


def test_rows_come_in_the_order_in_which_they_are_asked_for(lake: Lake, storage: Storage) -> None:
    table = merge_table(lake, storage=storage)
    writer = Writer(table)
    for start in range(0, 50, 10):
        writer.apply(range(start, start + 10))
    asked = np.random.default_rng(1).choice(50, 30).tolist()  # some twice
    found = table.rows(np.array([writer.live[i] for i in asked]), ["name", "id"])
    assert found.to_pydict() == {"name": [f"n{i}" for i in asked], "id": asked}
    assert table.rows(NOTHING).schema == table.columns
    in_order = table.rows(np.array([writer.live[i] for i in range(50)]))
    assert in_order["id"].to_pylist() == list(range(50))


def test_a_row_is_found_in_a_far_row_group(local: Lake) -> None:
    table = merge_table(local)
    found = table.commit(rows(range(350_000)), NOTHING, {}, state())
    asked = [349_999, 0, 100_000, 99_999, 250_001]
    assert table.rows(found[asked], ["id"])["id"].to_pylist() == asked
    assert table.rows(found[[250_001]], ["id"])["id"].to_pylist() == [250_001]


def test_a_file_keeps_its_number_and_its_vector_grows(local: Lake) -> None:
    table = merge_table(local)
    writer = Writer(table)
    writer.apply(range(10))
    (number,) = table.files()
    for i in range(3):
        writer.apply([], [i])
        assert list(table.files()) == [number]
        assert sorted(table.dead(number) or ()) == list(range(i + 1))
    assert sorted(merge_table(local).dead(number) or ()) == [0, 1, 2]


def test_a_file_whose_last_row_is_deleted_leaves_the_table(local: Lake, storage: Storage) -> None:
    table = merge_table(local, storage=storage)
    writer = Writer(table)
    writer.apply(range(3))
    writer.apply(range(3, 6), [0, 1])
    writer.apply([], [2])
    actions = log_of(local, table.version)
    assert [next(iter(action)) for action in actions] == ["commitInfo", "txn", "remove"]
    assert len(table.files()) == 1
    assert by_deltalake(local) == by_duckdb(local) == [3, 4, 5]


def test_removing_what_is_gone_changes_nothing(local: Lake, storage: Storage) -> None:
    table = merge_table(local, storage=storage)
    writer = Writer(table)
    writer.apply(range(5))
    at = np.array([writer.live[1], writer.live[1]])
    table.commit(rows([]), at, {}, state())
    writer.moved(*table.moved)
    (before,) = table.files().values()
    table.commit(rows([]), at, {}, state())
    assert list(table.files().values()) == [before] and by_deltalake(local) == [0, 2, 3, 4]
    assert [next(iter(action)) for action in log_of(local, table.version)] == ["commitInfo"]
    everything = np.array([writer.live[i] for i in range(5)])
    table.commit(rows([]), everything, {}, state())
    table.commit(rows([]), everything, {}, state())  # of a file that is no longer there
    assert by_deltalake(local) == by_duckdb(local) == []


def test_a_position_that_no_file_has_is_refused_before_anything_is_committed(local: Lake, storage: Storage) -> None:
    table = merge_table(local, storage=storage)
    Writer(table).apply(range(5))
    with pytest.raises(ValueError, match="no row 5"):
        table.commit(rows([]), np.array([5]), {}, state())
    assert table.version == 1


def test_an_empty_table_and_an_empty_commit_are_readable(lake: Lake, storage: Storage) -> None:
    table = merge_table(lake, storage=storage)
    assert table.version == 0 and table.state() is None and table.progress([("topic", 0)]) == {}
    assert by_deltalake(lake) == by_duckdb(lake) == []
    assert len(table.commit(pa.table({}), NOTHING, {("topic", 0): 7}, state(1))) == 0
    assert by_deltalake(lake) == by_duckdb(lake) == []
    assert merge_table(lake, storage=storage).progress([("topic", 0)]) == {("topic", 0): 7}


def test_all_vectors_of_a_commit_are_in_one_file(local: Lake) -> None:
    table = merge_table(local)
    writer = Writer(table)
    for start in range(0, 40, 10):
        writer.apply(range(start, start + 10))
    writer.apply([], [0, 10, 20, 30])
    adds = [action["add"]["deletionVector"] for action in log_of(local, table.version) if "add" in action]
    assert len(adds) == 4 and len({vector["pathOrInlineDv"] for vector in adds}) == 1
    assert next(vector["offset"] for vector in adds) == 1


def test_a_million_rows_and_their_deletions(local: Lake, storage: Storage) -> None:
    table = merge_table(local, storage=storage)
    found = table.commit(rows(range(1_000_000)), NOTHING, {}, state())
    random = np.random.default_rng(3)
    gone = random.choice(1_000_000, 300_000, replace=False)
    table.commit(rows([]), found[gone[:150_000]], {}, state())
    if table.copies:
        old, new = table.moved
        assert sorted(old.tolist()) == sorted(set(found.tolist()) - set(found[gone[:150_000]].tolist()))
        found[np.searchsorted(found, old)] = new
    table.commit(rows([]), found[gone[150_000:]], {}, state())
    live = np.setdiff1d(np.arange(1_000_000), gone)
    summary = "count(*), min(id), max(id), sum(id), count(DISTINCT id)"
    told = [(len(live), int(live.min()), int(live.max()), int(live.sum()), len(live))]
    assert by_deltalake(local, summary) == by_duckdb(local, summary) == told


def test_a_big_append_becomes_several_files(local: Lake, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    from lakehouse.merge import data_files

    monkeypatch.setattr(data_files, "TARGET_BYTES", 10_000)
    table = merge_table(local, storage=storage)
    found = table.commit(rows(range(5000)), NOTHING, {}, state())
    assert len(table.files()) > 5
    assert table.rows(found)["id"].to_pylist() == list(range(5000))
    assert by_deltalake(local) == by_duckdb(local) == list(range(5000))

"""Compaction keeps every row and says where it went; vacuum deletes what no retained version needs, no more."""

from __future__ import annotations

import tempfile
import time
from datetime import timedelta
from random import Random

import numpy as np
import obstore
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.model import Storage
from lakehouse.lake import Lake
from lakehouse.merge import compaction, data_files, vectors
from lakehouse.merge.compaction import compact, slices
from lakehouse.merge.vacuum import vacuum
from lakehouse.table import Contested
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

HOUR = timedelta(hours=1)
NONE = timedelta(0)


def objects(lake: Lake, ending: str) -> set[str]:
    found = obstore.list(lake.objects, "t/").collect()
    return {entry["path"] for entry in found if entry["path"].endswith(ending) and "_delta_log" not in entry["path"]}


def test_small_files_are_merged_and_every_row_is_followed(lake: Lake) -> None:
    table = merge_table(lake, partition_by=("region",))
    writer = Writer(table)
    for i in range(9):
        writer.apply(range(i * 6, i * 6 + 6), [i * 6 - 1] if i else [])
    assert len(table.files()) == 27
    done = compact(table, budget=60)
    assert (done.files, done.commits, len(table.files())) == (27, 3, 3)
    writer.moved(done.old, done.new)
    assert not table.news()
    ids = sorted(writer.live)
    assert by_deltalake(lake) == by_duckdb(lake) == by_location(table) == ids
    assert table.rows(np.array([writer.live[i] for i in ids]), ["id"])["id"].to_pylist() == ids
    assert all(file.dead == 0 for file in table.files().values())
    writer.apply([1000], ids[:2])
    assert by_deltalake(lake) == by_location(table) == [*ids[2:], 1000]
    assert compact(table, budget=60).commits == 0


def test_files_that_hold_as_much_as_a_file_may_are_not_small_however_few_bytes_they_have(
    local: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = merge_table(local)
    writer = Writer(table)
    monkeypatch.setattr(data_files, "TARGET_BYTES", rows(range(1_000, 1_110)).nbytes)
    for i in range(1_000, 1_400, 40):
        writer.apply(range(i, i + 40))
    assert [file.full for file in table.files().values()] == [False] * 10
    done = compact(table, budget=60)
    writer.moved(done.old, done.new)
    assert (done.files, len(table.files())) == (10, 4)
    for i in range(2_000, 2_900, 90):
        writer.apply(range(i, i + 90))
    assert all(file.full and file.size < compaction.SMALL_BYTES for file in table.files().values())
    assert not list(slices(table)) and not sum(map(compaction.is_small, table.files().values()))
    writer.apply([], range(1_000, 1_045))
    done = compact(table, budget=60)
    writer.moved(done.old, done.new)
    assert (done.files, by_deltalake(local)) == (1, sorted(writer.live)), (
        "a full file with many deleted rows is written again"
    )


def test_a_slice_has_no_more_rows_than_memory_is_meant_for(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    table = merge_table(local)
    writer = Writer(table)
    for i in range(10):
        writer.apply(range(i * 40, i * 40 + 40))
    monkeypatch.setattr(compaction, "SLICE_ROWS", 200)
    monkeypatch.setattr(compaction, "SMALL_COUNT", 5)
    assert [len(numbers) for numbers in slices(table)] == [5, 5]


def test_a_file_is_rewritten_from_two_fifths_of_dead_rows_on(local: Lake) -> None:
    table = merge_table(local)
    writer = Writer(table)
    writer.apply(range(100))
    writer.apply([], range(39))
    assert compact(table, budget=60).files == 0
    writer.apply([], [39])
    done = compact(table, budget=60)
    writer.moved(done.old, done.new)
    assert (done.files, len(done.old)) == (1, 60)
    assert by_deltalake(local) == by_location(table) == list(range(40, 100))


def test_a_compaction_changes_no_data_and_repeats_state_and_metadata(local: Lake) -> None:
    table = merge_table(local)
    writer = Writer(table)
    writer.apply(range(10))
    writer.apply([], range(5))
    compact(table, budget=60)
    actions = log_of(local, table.version)
    changes = {kind: body["dataChange"] for action in actions for kind, body in action.items() if "dataChange" in body}
    assert changes == {"remove": False, "add": False} and actions[0]["commitInfo"]["operation"] == "OPTIMIZE"
    fresh = merge_table(local)
    assert table.state() == fresh.state() == state(2) and fresh.progress([("topic", 0)]) == {("topic", 0): 2}
    assert "tidegate" in actions[0]["commitInfo"]
    assert [action["metaData"] for action in actions if "metaData" in action] == [fresh.metadata]


def test_a_compaction_of_deltalake_that_began_before_ours_brings_no_row_back(local: Lake) -> None:
    table = merge_table(local)
    writer = Writer(table)
    for start in range(0, 90, 10):
        writer.apply(range(start, start + 10))
    others = DeltaTable(local.table_uri("t"))
    assert compact(table, budget=60).files == 9
    with pytest.raises(CommitFailedError):
        others.optimize.compact()
    assert by_deltalake(local) == by_duckdb(local) == list(range(90))


def test_no_slice_is_begun_after_the_budget(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "SLICE_FILES", 8)
    table = merge_table(local)
    writer = Writer(table)
    for i in range(24):
        writer.apply([i])
    assert compact(table, budget=-1).commits == 0
    assert len(list(slices(table))) == 3
    done = compact(table, budget=60)
    writer.moved(done.old, done.new)
    assert done.commits == 3 and by_location(table) == list(range(24))


def test_a_compaction_that_loses_a_race_leaves_the_table_as_it_was(local: Lake) -> None:
    table, other = merge_table(local), merge_table(local)
    writer = Writer(table)
    writer.apply(range(10))
    writer.apply([], range(5))
    other.open()
    other.commit(rows([77]), NOTHING, {}, state())
    with pytest.raises(Contested):
        compact(table, budget=60)
    assert by_location(table) == [5, 6, 7, 8, 9]
    table.open()
    done = compact(table, budget=60)
    writer.moved(done.old, done.new)
    assert by_deltalake(local) == by_location(table) == [5, 6, 7, 8, 9, 77]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 10), st.integers(0, 10), st.booleans()), min_size=3, max_size=12),
    st.randoms(),
    st.sampled_from(Storage),
)
def test_compaction_between_commits_never_loses_a_row(
    steps: list[tuple[int, int, bool]], random: Random, storage: Storage
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        table = merge_table(lake, storage=storage)
        writer, next_id = Writer(table), 0
        for count, removed, compacts in steps:
            gone = random.sample(sorted(writer.live), min(removed, len(writer.live)))
            writer.apply(range(next_id, next_id + count), gone)
            next_id += count
            if compacts:
                done = compact(table, budget=60)
                writer.moved(done.old, done.new)
            ids = sorted(writer.live)
            assert by_location(table) == by_deltalake(lake) == ids
            assert table.rows(np.array([writer.live[i] for i in ids], np.int64))["id"].to_pylist() == ids


def aged(lake: Lake) -> None:
    """Let everything that is there be older than a retention of nothing: clocks of files and commits are in ms."""
    time.sleep(0.02)


def test_vacuum_keeps_only_what_the_newest_version_needs_when_nothing_is_retained(lake: Lake) -> None:
    table = merge_table(lake, partition_by=("region",))
    writer = Writer(table)
    writer.apply(range(12))
    for i in range(6):
        writer.apply([100 + i], [i])
    done = compact(table, budget=60)
    writer.moved(done.old, done.new)
    writer.apply([200], [11])
    aged(lake)
    before = objects(lake, ".parquet"), objects(lake, ".bin")
    dry = vacuum(lake, "t", NONE, dry_run=True)
    assert (objects(lake, ".parquet"), objects(lake, ".bin")) == before
    assert vacuum(lake, "t", NONE) == dry and dry.data_files > 0 and dry.vector_files == 6
    live = {f"t/{file.path}" for file in table.files().values()}
    vectors = {f"t/{file.vector.path}" for file in table.files().values() if file.vector}
    assert (objects(lake, ".parquet"), objects(lake, ".bin")) == (live, vectors) and len(vectors) == 1
    assert by_deltalake(lake) == by_duckdb(lake) == by_location(merge_table(lake, partition_by=("region",)))
    assert by_deltalake(lake) == sorted(writer.live)
    assert vacuum(lake, "t", NONE).data_files == 0


def test_every_version_of_the_retention_stays_readable(lake: Lake, storage: Storage) -> None:
    table = merge_table(lake, storage=storage)
    writer = Writer(table)
    versions = {0: []}
    for i in range(10):
        writer.apply(range(i * 4, i * 4 + 4), [i * 4 - 2, i * 4 - 1] if i else [])
        versions[table.version] = sorted(writer.live)
    before = list(table.files())
    assert compact(table, budget=60).files == len(before) >= 8
    assert vacuum(lake, "t", HOUR) == vacuum(lake, "t", HOUR, dry_run=True)
    for version, live in versions.items():
        assert by_deltalake(lake, version=version) == live


def test_what_was_the_newest_when_the_retention_began_stays_readable(local: Lake) -> None:
    table = merge_table(local)
    writer = Writer(table)
    writer.apply(range(10))
    writer.apply([], [0])
    writer.apply([], [1])  # the newest version for the whole wait below
    aged(local)
    began = time.time()
    time.sleep(0.05)
    writer.apply([], [2])
    done = vacuum(local, "t", timedelta(seconds=time.time() - began))
    assert done.vector_files == 1  # of the second commit
    assert by_deltalake(local, version=3) == list(range(2, 10)) and by_deltalake(local) == list(range(3, 10))


def test_files_that_no_version_knows_are_deleted_once_they_are_old(local: Lake) -> None:
    table, other = merge_table(local), merge_table(local)
    found = table.commit(rows(range(10)), NOTHING, {}, state())
    other.open()
    table.commit(rows([10]), NOTHING, {}, state())
    with pytest.raises(Contested):
        other.commit(rows([11]), found[:1], {}, state())
    local.put("t/notes.txt", b"mine")
    local.put("t/_private/part-0.parquet", b"mine")
    aged(local)
    assert vacuum(local, "t", HOUR).data_files == 0
    done = vacuum(local, "t", NONE)
    assert (done.data_files, done.vector_files) == (1, 1)
    assert local.exists("t/notes.txt") and local.exists("t/_private/part-0.parquet")
    assert by_deltalake(local) == by_duckdb(local) == list(range(11))


def test_vacuum_reads_the_checkpoint_where_the_log_was_cleaned(local: Lake) -> None:
    table = merge_table(local)
    writer = Writer(table)
    writer.apply(range(10))
    for i in range(3):
        writer.apply([], [i])
    DeltaTable(local.table_uri("t")).create_checkpoint()
    for version in range(4):
        obstore.delete(local.objects, f"t/_delta_log/{version:020}.json")
    aged(local)
    assert vacuum(local, "t", HOUR).vector_files == 0
    assert vacuum(local, "t", NONE).vector_files == 2
    assert by_deltalake(local) == by_duckdb(local) == list(range(3, 10))


def test_a_writer_goes_on_after_a_vacuum(lake: Lake, storage: Storage) -> None:
    table = merge_table(lake, storage=storage)
    writer = Writer(table)
    writer.apply(range(20))
    writer.apply([], [0])
    aged(lake)
    vacuum(lake, "t", NONE)
    writer.apply([20], [1])
    aged(lake)
    vacuum(lake, "t", NONE)
    assert by_deltalake(lake) == by_location(table) == list(range(2, 21))


def test_there_is_nothing_to_vacuum_where_no_table_is(local: Lake) -> None:
    assert vacuum(local, "t", NONE).data_files == 0


def test_the_full_vacuum_of_delta_rs_finds_no_vector_to_destroy(lake: Lake) -> None:
    table = merge_table(lake, partition_by=("region",))
    writer = Writer(table)
    writer.apply(range(20))
    writer.apply([], [0, 7])
    writer.apply([], [8])
    aged(lake)
    read = DeltaTable(lake.table_uri("t"), storage_options=dict(lake.storage_options))
    read.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)
    live = sorted(writer.live)
    assert by_deltalake(lake) == by_duckdb(lake) == by_location(merge_table(lake, partition_by=("region",))) == live


def test_vectors_beside_the_data_files_are_what_the_full_vacuum_of_delta_rs_destroys(
    local: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why ours lie in a folder of their own, and why docs/operations.md warns of it where Spark has deleted rows."""
    monkeypatch.setattr(vectors, "FOLDER", "")
    table = merge_table(local)
    writer = Writer(table)
    writer.apply(range(20))
    writer.apply([], [0, 7])
    aged(local)
    DeltaTable(local.table_uri("t")).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert by_deltalake(local) == sorted(writer.live)
    read = DeltaTable(local.table_uri("t"))
    read.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)
    with pytest.raises(Exception, match="deletion_vector"):
        by_deltalake(local)

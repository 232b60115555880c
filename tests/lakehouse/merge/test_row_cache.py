"""Rows that are kept beside their data files: the same as in the file, within the budget, and only ever a hint."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lakehouse.lake import Lake
from lakehouse.merge import data_files, reading
from lakehouse.merge.data_files import Layout, write_files
from lakehouse.merge.log import DataFile
from lakehouse.merge.reading import FileReader
from lakehouse.merge.row_cache import RowCache
from tests.lakehouse.merge.tables import Writer, merge_table

ROWS = 1_000
COLUMNS = pa.schema([(f"c{number}", pa.int64()) for number in range(reading.WHOLE_ROWS)])


def some(first: int, count: int = 100) -> pa.Table:
    return pa.table({name: np.arange(first, first + count) for name in COLUMNS.names})


def used(cache: RowCache, seconds_ago: float) -> None:
    for path in cache.folder.iterdir():
        os.utime(path, (time.time() - seconds_ago,) * 2)


def test_pieces_are_given_back_as_they_came(tmp_path: Path) -> None:
    cache = RowCache(tmp_path / "rows", 10**6)
    assert cache.put("t", "a", 0, some(0)) and cache.put("t", "a", 1, some(100, 50))
    fresh = RowCache(tmp_path / "rows", 10**6)
    found = fresh.get("t", "a", 0), fresh.get("t", "a", 1)
    assert found == (some(0), some(100, 50))
    assert fresh.get("t", "a", 2) is None and fresh.get("t", "b", 0) is None and fresh.get("u", "a", 0) is None


def test_what_was_used_a_short_while_ago_is_not_given_up_and_what_was_not_goes_first(tmp_path: Path) -> None:
    size = some(0).nbytes
    cache = RowCache(tmp_path / "rows", size * 5, in_use_seconds=60)
    assert all(cache.put("t", name, 0, some(0)) for name in "abc")
    assert not cache.put("t", "large", 0, some(0, 300)), "all that is there is in use"
    used(cache, 120)
    assert cache.get("t", "b", 0) is not None
    assert cache.put("t", "d", 0, some(0, 200))
    assert cache.get("t", "b", 0) is not None and cache.get("t", "d", 0) is not None
    fresh = RowCache(tmp_path / "rows", size * 5)
    assert sum(fresh.get("t", name, 0) is not None for name in "ac") < 2


def test_a_file_that_stays_mapped_counts_as_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = RowCache(tmp_path / "rows", some(0).nbytes * 2, in_use_seconds=60)
    cache.put("t", "a", 0, some(0))
    assert cache.get("t", "a", 0) is not None
    used(cache, 120)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert cache.get("t", "a", 0) is not None
    assert not cache.put("t", "b", 0, some(0, 200))


def test_without_a_budget_or_a_disk_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not RowCache(tmp_path / "rows", 0).put("t", "a", 0, some(0))
    full = RowCache(tmp_path / "full", 10**6)

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    assert not full.put("t", "a", 0, some(0))
    assert full.get("t", "a", 0) is None and not list(full.folder.iterdir()), "half a file is left"


@pytest.mark.parametrize("budget", [10**9, 0], ids=["kept", "not kept"])
def test_rows_at_positions_are_the_same_whether_they_are_kept_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    monkeypatch.setattr(data_files, "ROW_GROUP", 70)
    monkeypatch.setattr(reading, "FEW_ROWS", 10)
    lake, rows = Lake.open(str(tmp_path / "lake")), some(0, ROWS)
    written = write_files(lake, "t", rows, Layout(COLUMNS, (), ()))[0]
    file = DataFile(written.path, written.add, None)
    cache = RowCache(tmp_path / "rows", budget)
    reader = FileReader(lake, "t", cache)
    random = np.random.default_rng(1)
    for count in (1, 3, 40, 400, ROWS):
        positions = np.sort(random.choice(ROWS, count, replace=False))
        for _ in range(2):
            assert reader.read(file, COLUMNS, positions).equals(rows.take(pa.array(positions)))
    assert (cache.get(f"{lake.uri}/t", written.path, 0) is not None) == bool(budget)


def test_files_written_again_are_kept_where_single_rows_are_asked_for(
    local: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FEW_ROWS", 10)
    monkeypatch.setattr(reading, "WHOLE_ROWS", 3)
    monkeypatch.setattr(reading, "ROW_GROUP", 7)
    monkeypatch.setattr(data_files, "ROW_GROUP", 7)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    table = merge_table(local, partition_by=("region",))
    writer = Writer(table)
    for first in (0, 60):
        writer.apply(range(first, first + 60))
    kept = RowCache()

    def held() -> set[str]:
        files = [file.path for file in table.files().values()]
        return {path for path in files if kept.get(f"{local.uri}/t", path, 0) is not None}

    def rewrite() -> None:
        writer.moved(*table.rewrite(sorted(table.files())))

    rewrite()
    assert not held(), "nobody has asked for a row"
    asked = np.sort([writer.live[i] for i in (3, 4, 5, 60)])
    assert sorted(table.rows(asked)["id"].to_pylist()) == [3, 4, 5, 60]
    writer.apply([200], [3])
    rewrite()
    assert held() == {file.path for file in table.files().values()}
    monkeypatch.setattr(FileReader, "_open", None)  # no data file is opened any more
    ids = sorted(writer.live)
    assert sorted(table.rows(np.sort([*writer.live.values()]))["id"].to_pylist()) == ids
    assert sorted(row for number in table.files() for row in table.living(number)["id"].to_pylist()) == ids

"""Clean-up of a log leaves what a version of the retention needs, and what the table's writer reads at its start."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from lakehouse.lake import Lake
from lakehouse.merge.intervals import interval
from lakehouse.merge.log_cleanup import clean_log
from tests.lakehouse.merge.tables import Writer, by_deltalake, by_duckdb, merge_table

HOUR = timedelta(hours=1)


def log(lake: Lake) -> set[str]:
    return {path.name for path in Path(lake.table_uri("t"), "_delta_log").iterdir()}


def committed(lake: Lake, versions: int, checkpoints: set[int]) -> Writer:
    writer = Writer(merge_table(lake))
    for version in range(1, versions + 1):
        writer.apply([version])
        if version in checkpoints:
            DeltaTable(lake.table_uri("t")).create_checkpoint()
    return writer


def age(lake: Lake, versions: range) -> None:
    """Let entries be two hours old."""
    for path in Path(lake.table_uri("t"), "_delta_log").iterdir():
        if path.name[:20].isdigit() and int(path.name[:20]) in versions:
            os.utime(path, (time.time() - 7200,) * 2)


def test_entries_before_the_checkpoint_that_the_retention_begins_with_are_deleted(local: Lake) -> None:
    writer = committed(local, 7, {2, 4, 6})
    age(local, range(6))  # version 5 was the newest when the retention began; it needs the checkpoint of 4
    local.put(f"t/_delta_log/{1:020}.crc", b"x")
    local.put(f"t/_delta_log/{0:020}.{3:020}.compacted.json", b"x")
    age(local, range(6))
    before = log(local)
    dry = clean_log(local, "t", HOUR, dry_run=True)
    assert log(local) == before and dry.entries == 7 and dry.bytes > 0
    assert clean_log(local, "t", HOUR) == dry
    assert before - log(local) == {
        *(f"{version:020}.json" for version in range(4)),
        f"{2:020}.checkpoint.parquet",
        f"{1:020}.crc",
        f"{0:020}.{3:020}.compacted.json",
    }
    for version in (4, 5, 6, 7):
        assert by_deltalake(local, version=version) == list(range(1, version + 1))
    assert by_duckdb(local) == list(range(1, 8))
    assert merge_table(local).state() == writer.table.state()
    writer.apply([8])
    assert clean_log(local, "t", HOUR).entries == 0


@pytest.mark.parametrize("checkpoints", [set(), {7}], ids=["none", "only a young one"])
def test_nothing_is_deleted_without_a_checkpoint_from_before_the_retention(local: Lake, checkpoints: set[int]) -> None:
    committed(local, 7, checkpoints)
    age(local, range(7))
    assert clean_log(local, "t", HOUR).entries == 0


def test_half_of_a_checkpoint_is_none(local: Lake) -> None:
    committed(local, 4, {2})
    name = Path(local.table_uri("t"), "_delta_log", f"{2:020}.checkpoint.parquet")
    name.rename(name.with_name(f"{2:020}.checkpoint.{1:010}.{2:010}.parquet"))
    age(local, range(5))
    assert clean_log(local, "t", HOUR).entries == 0


def test_a_table_that_was_never_filled_keeps_its_log_and_stays_so(local: Lake) -> None:
    table = merge_table(local)
    for _ in range(3):
        DeltaTable(local.table_uri("t")).alter.set_table_properties({"a": "b"}, raise_if_not_exists=False)
    DeltaTable(local.table_uri("t")).create_checkpoint()
    age(local, range(10))
    assert clean_log(local, "t", HOUR).entries == 0
    table.open()
    assert merge_table(local).state() is None
    assert clean_log(local, "t", HOUR, filled=False).entries == 3


@pytest.mark.parametrize(
    ("written", "given"),
    [("interval 30 days", 30), ("interval 1 week", 7), ("INTERVAL 48 hours", 2), ("interval 1 day 2 hours", None)],
)
def test_intervals_are_read_as_table_properties_write_them(written: str, given: int | None) -> None:
    assert interval(written) == (None if given is None else timedelta(days=given))

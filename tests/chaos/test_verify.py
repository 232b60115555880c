"""The law finds each way of breaking it: nothing is worth a count that cannot tell a loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from contracts.load import load_contracts
from lakehouse.commit import StreamTables
from lakehouse.lake import Lake
from lakehouse.segments import Range, Section, write_segment
from lakehouse.standing import standings
from tests.chaos.arena import CONTRACTS
from tests.chaos.records import CLICKS, Records
from tests.chaos.test_records import _as_read
from tests.chaos.verify import verify
from udfs.keys import KeyRing
from udfs.refine import refine

COUNT, SEED = 2_000, 5
NOW_MS = 1_800_000_000_000
Keep = Callable[[pa.Table], pa.Table]


def commit(lake: Lake, change: Keep, count: int = COUNT) -> None:
    contract = next(c for c in load_contracts(CONTRACTS) if c.stream == CLICKS.stream)
    tables = StreamTables(lake, contract, pipeline="chaos")
    for partition in range(CLICKS.partitions):
        records = Records(SEED, CLICKS, partition, 0, count)
        refined = refine(_as_read(records), contract, lambda _: "", KeyRing({}), NOW_MS)
        covered = (Range(CLICKS.name, partition, None, 0, count - 1, count, NOW_MS),)
        section = Section(CLICKS.stream, change(refined.rows), refined.rejects, refined.others, covered)
        refs = write_segment(lake, f"{partition}", [section])
        tables.commit(refs, gaps=lambda *_: False, now_ms=NOW_MS)


def faults(lake: Lake) -> list[str]:
    contracts = [c for c in load_contracts(CONTRACTS) if c.stream == CLICKS.stream]
    produced = {(CLICKS, partition): COUNT for partition in range(CLICKS.partitions)}
    return verify(lake, SEED, produced, standings(lake, contracts, "chaos"))[1]


def other_value(rows: pa.Table) -> pa.Table:
    cents = rows["cents"].to_numpy().copy()
    cents[7] += 1
    return rows.set_column(rows.schema.get_field_index("cents"), "cents", pa.array(cents))


def without_one(rows: pa.Table) -> pa.Table:
    return rows.filter(pa.array(np.arange(len(rows)) != 7))


def one_twice(rows: pa.Table) -> pa.Table:
    return rows.take(pa.array(np.sort(np.append(np.arange(len(rows)), 7))))


def test_tables_that_hold_everything_once_pass(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path))
    commit(lake, lambda rows: rows)
    assert faults(lake) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [(without_one, "1 offsets missing"), (one_twice, "more than once"), (other_value, "other values than produced")],
)
def test_one_wrong_row_is_found_and_its_offset_is_named(tmp_path: Path, change: Keep, words: str) -> None:
    lake = Lake.open(str(tmp_path))
    commit(lake, lambda rows: change(rows) if rows["_partition"][0].as_py() == 1 else rows)
    found = "\n".join(faults(lake))
    assert words in found
    assert "first partition 1 offset 7" in found


def test_records_that_never_came_are_found(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path))
    commit(lake, lambda rows: rows, COUNT - 10)
    found = "\n".join(faults(lake))
    assert "missing, first partition 0 offset 1990" in found
    assert "the progress says" in found

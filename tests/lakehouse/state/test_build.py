"""Current and history join a stream that has run without them: built from its changes, then kept."""

from __future__ import annotations

import dataclasses
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.model import Storage, Truncate
from lakehouse.errors import PartialTable
from lakehouse.lake import Lake
from tests.lakehouse.rows import NOW, no_gaps, section, tables, write
from tests.lakehouse.state.source import Source, contract
from tests.lakehouse.state.test_state_laws import LAW, STORAGES, deliver, held, verify


@given(st.integers(0, 10**9), st.integers(1, 5), st.booleans(), st.sampled_from(["changes", "current"]), STORAGES)
@LAW
def test_tables_built_from_the_changes_are_those_that_were_kept_all_along(
    seed: int, commits: int, truncates: bool, kept: str, storage: Storage
) -> None:
    whole = contract(truncate=Truncate.APPLY, storage=storage)
    before = {"changes": ("quarantine", "changes"), "current": ("quarantine", "changes", "current")}[kept]
    source = Source(seed, dataclasses.replace(whole, tables=before), truncates=truncates, renames=not truncates)
    source.run(source.random.randint(1, 40))
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        deliver(source, lake, commits=commits)
        source.contract = whole
        stream = tables(lake, whole)
        stream.prepare()
        verify(source, lake)
        source.run(5)
        deliver(source, lake, commits=commits)
        verify(source, lake)


def test_a_stream_with_a_row_filter_cannot_be_built_from_its_changes(local: Lake) -> None:
    filtered = dataclasses.replace(contract(), row_filter="n > 3")
    source = Source(1, dataclasses.replace(filtered, tables=("quarantine", "changes")))
    source.run(5)
    deliver(source, local, commits=1)
    with pytest.raises(PartialTable, match="which rows left the row filter"):
        tables(local, filtered).prepare()


def test_what_waits_in_quarantine_marks_the_rows_that_are_built(local: Lake) -> None:
    of = contract()
    rows = [{"id": 1, "n": 1, "_op": "c", "_position_major": 5, "_position_minor": 5, **_at(0)}]
    rejects = [
        {"_key": '{"id": 1}', "_op": "u", "_stage": "check", "_rules": ["r"], "_reason": "x", "_position_major": 6,
         "_position_minor": 6, **_at(1)}
    ]  # fmt: skip
    old = dataclasses.replace(of, tables=("quarantine", "changes"))
    tables(local, old).commit(write(local, section(rows, rejects, of=old)), gaps=no_gaps, now_ms=NOW)
    tables(local, of).prepare()
    assert held(local, "docs", "id, n, _stale") == [(1, 1, True)]


def _at(offset: int) -> dict[str, object]:
    return {"_topic": "shop.docs", "_partition": 0, "_offset": offset, "_ingested_at": 0, "_event_time": 0}


@pytest.mark.parametrize("dropped", [("history",), ("history", "current")], ids=str)
def test_tables_that_were_not_kept_for_a_while_are_built_again(local: Lake, dropped: tuple[str, ...]) -> None:
    whole = contract()
    less = dataclasses.replace(whole, tables=tuple(name for name in whole.tables if name not in dropped))
    source = Source(11, whole)
    for of in (whole, less, whole):
        source.contract = of
        source.run(15)
        deliver(source, local, commits=2)
    verify(source, local)

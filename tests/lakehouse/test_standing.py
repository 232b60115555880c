"""A start continues from the Delta log: where each stream's tables stand, read without touching them."""

from __future__ import annotations

from dataclasses import replace

from contracts.model import Start
from lakehouse.lake import Lake
from lakehouse.standing import standings
from tests.lakehouse.rows import CONTRACT, NOW, TOPIC, contract, no_gaps, other, row, section, tables, write
from tests.lakehouse.state import source

AUDIT = contract(stream="audit")
FRESH = contract(stream="fresh")


def test_each_stream_has_its_own_progress_and_asking_creates_nothing(lake: Lake) -> None:
    tables(lake).commit(write(lake, section([row(0), row(8)], others=[other(3, 1)])), gaps=no_gaps, now_ms=NOW)
    tables(lake, AUDIT).commit(write(lake, section([row(0), row(5)], of=AUDIT)), gaps=no_gaps, now_ms=NOW)
    found = standings(lake, [CONTRACT, AUDIT, FRESH], "test")
    assert found["orders"].progress == {(TOPIC, 0): 8, (TOPIC, 1): 3}
    assert found["audit"].progress == {(TOPIC, 0): 5}
    assert found["fresh"].anchor is None and found["fresh"].progress == {}
    assert "fresh_changes" not in lake.tables()


def test_a_standing_tells_the_epoch_and_when_it_was_committed(lake: Lake) -> None:
    tables(lake).commit(write(lake, section([row(8)])), gaps=no_gaps, now_ms=NOW)
    tables(lake, epochs={TOPIC: 1}).commit(write(lake, section([row(2)])), gaps=no_gaps, now_ms=NOW)
    found = standings(lake, [CONTRACT], "test")["orders"]
    assert found.epoch(TOPIC) == 1
    assert found.progress == {(TOPIC, 0): 2}
    assert found.versions["orders_changes"] == 2
    assert found.committed_at_ms is not None


def test_progress_of_an_earlier_epoch_is_none_in_the_next(lake: Lake) -> None:
    tables(lake).commit(write(lake, section([row(8)])), gaps=no_gaps, now_ms=NOW)
    found = standings(lake, [CONTRACT, FRESH], "test")
    assert found["orders"].progress_in({}) == {(TOPIC, 0): 8}
    assert found["orders"].progress_in({TOPIC: 1}) == {}
    assert found["fresh"].progress_in({}) == {}


def test_tables_of_keys_that_did_not_begin_at_the_first_record_are_noted(lake: Lake) -> None:
    keyed = replace(source.CONTRACT, start=Start.LATEST)
    assert standings(lake, [keyed], "test")["docs"].notes == ()
    tables(lake, keyed).prepare()
    (note,) = standings(lake, [keyed], "test")["docs"].notes
    assert "incremental snapshot" in note
    assert standings(lake, [source.CONTRACT], "test")["docs"].notes == ()
    changes = replace(keyed, tables=("quarantine", "changes"))
    assert standings(lake, [changes], "test")["docs"].notes == ()

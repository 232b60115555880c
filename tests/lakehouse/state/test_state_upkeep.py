"""Upkeep between commits changes nothing that a reader could see, but for the number of files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.model import Storage, Truncate
from lakehouse import upkeep
from lakehouse.commit import StreamTables
from lakehouse.errors import LakeUnavailable
from lakehouse.lake import Lake
from lakehouse.merge import compaction
from lakehouse.merge.merge_table import MergeTable
from lakehouse.state.table import StateTable
from lakehouse.upkeep import Requests, Upkept
from tests.lakehouse.rows import NOW, no_gaps, row, section, tables, write
from tests.lakehouse.state.source import TOPIC, Source, contract
from tests.lakehouse.state.test_state_laws import LAW, STORAGES, deliver, held, verify

DAY_MS = 24 * 3_600_000


@pytest.fixture(autouse=True, scope="module")
def always_due() -> Iterator[None]:
    """Let every call of upkeep look at every table, and take few files for many."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("EVERY", "PRESSING_EVERY", "APPENDED_EVERY", "FORGET_EVERY", "ASKED_EVERY"):
            patch.setattr(upkeep, name, 0.0)
        patch.setattr(compaction, "SMALL_COUNT", 2)
        yield


def maintain(stream: StreamTables) -> None:
    done = stream.maintain(60)
    assert not done.failures and not done.lost


@given(st.integers(0, 10**9), st.integers(1, 8), st.booleans(), st.booleans(), st.booleans(), STORAGES)
@LAW
def test_the_laws_hold_with_upkeep_between_commits(  # noqa: PLR0917 (what is drawn)
    seed: int, commits: int, composite: bool, soft: bool, scattered: bool, storage: Storage
) -> None:
    source = Source(
        seed, contract(composite, soft_deletes=soft, storage=storage), scattered=scattered, renames=not scattered
    )
    source.run(source.random.randint(1, 40))
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        deliver(source, lake, commits=commits, between=lambda s: maintain(s) if source.random.random() < 0.7 else None)
        verify(source, lake)


@given(st.integers(0, 10**9), st.integers(2, 8), st.booleans(), STORAGES)
@LAW
def test_truncates_and_quarantined_changes_hold_with_upkeep_between_commits(
    seed: int, commits: int, truncates: bool, storage: Storage
) -> None:
    of = contract(truncate=Truncate.APPLY, storage=storage)
    source = Source(seed, of, truncates=truncates, withholds=not truncates, renames=False)
    source.run(source.random.randint(1, 60))
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        deliver(source, lake, commits=commits, between=maintain)
        verify(source, lake)


def test_every_table_ends_with_few_files(local: Lake, storage: Storage) -> None:
    source = Source(1, contract(storage=storage), keys=50)
    source.run(400)
    stream = deliver(source, local, commits=12, between=maintain)
    verify(source, local)
    for table in stream.tables:
        files = upkeep.rewritable(local, table, "test")
        assert not files.open() or len(files.files()) <= 2, table.name


def few(lake: Lake, commits: int, first: int = 0, storage: Storage = Storage.MERGE_ON_READ) -> StreamTables:
    """Give a stream that was committed so many times, with nothing kept up."""
    of = contract(storage=storage)
    stream = tables(lake, of)
    for n in range(first, first + commits):
        made = row(n, topic=TOPIC, n=n, email=None)
        del made["email"]
        stream.commit(write(lake, section([made], of=of)), gaps=no_gaps, now_ms=NOW)
    return stream


def test_a_lost_race_is_no_failure_and_the_writer_goes_on(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = few(local, 4)
    other = few(local, 1, first=4)
    done = stream.maintain(60)
    assert done.lost and not done.failures
    few(local, 1, first=5)
    stream.commit(write(local, section([row(6, topic=TOPIC, n=6)], of=contract())), gaps=no_gaps, now_ms=NOW)
    maintain(stream)
    assert [n for (n,) in held(local, "docs", "id")] == list(range(7))
    assert other.contract.stream == "docs"


def test_an_upkeep_that_fails_fails_no_commit(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = few(local, 4)

    def away(*_: object) -> object:
        raise LakeUnavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(MergeTable, "rewrite", away)
        assert "LakeUnavailable: away" in stream.maintain(60).failures
    stream.commit(write(local, section([row(4, topic=TOPIC, n=4)], of=contract())), gaps=no_gaps, now_ms=NOW)
    maintain(stream)
    assert [n for (n,) in held(local, "docs", "id")] == list(range(5))


def test_a_file_whose_scan_failed_is_entered_by_the_next(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = few(local, 3)
    few(local, 1, first=3)  # by another process
    again = row(4, topic=TOPIC, n=99) | {"id": 3}
    refs = write(local, section([again], of=contract()))

    def away(*_: object) -> object:
        raise LakeUnavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(MergeTable, "scan", away)
        with pytest.raises(LakeUnavailable):
            stream.commit(refs, gaps=no_gaps, now_ms=NOW)
    stream.commit(refs, gaps=no_gaps, now_ms=NOW)
    assert held(local, "docs", "id, n") == [(0, 0), (1, 1), (2, 2), (3, 99)]


def test_rows_that_upkeep_moved_are_not_read_again(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = few(local, 4)

    def never(*_: object) -> object:
        raise AssertionError

    monkeypatch.setattr(MergeTable, "scan", never)
    assert stream.maintain(60).commits >= 2
    again = row(4, topic=TOPIC, n=99) | {"id": 2}
    stream.commit(write(local, section([again], of=contract())), gaps=no_gaps, now_ms=NOW)
    assert held(local, "docs", "id, n") == [(0, 0), (1, 1), (2, 99), (3, 3)]


def test_upkeep_begins_no_slice_after_its_budget(local: Lake) -> None:
    stream = few(local, 4)
    assert stream.maintain(-1) == Upkept()
    assert stream.maintain(60).commits >= 2


def test_what_a_request_asks_for_is_done_and_answered(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "EVERY", 3600.0)
    monkeypatch.setattr(upkeep, "APPENDED_EVERY", 3600.0)
    stream, requests = few(local, 4), Requests(local, "test")
    assert stream.maintain(60).commits == 0
    requests.ask("docs")
    assert stream.maintain(60).commits >= 2 and requests.standing("docs")
    assert stream.maintain(60).commits == 0 and not requests.standing("docs")


def memory_of(stream: StreamTables) -> StateTable:
    return next(table for table in stream.tables if isinstance(table, StateTable) and table.kind.name == "memory")


def recorded(stream: StreamTables) -> int:
    memory = memory_of(stream)
    memory.open()
    return sum(memory.row_count(n) - len(memory.dead(n) or ()) for n in memory.files())


def delete(lake: Lake, stream: StreamTables, offset: int, key: int) -> None:
    gone = row(offset, topic=TOPIC, _op="d") | {"id": key}
    stream.commit(write(lake, section([gone], of=contract())), gaps=no_gaps, now_ms=NOW)


def test_old_records_of_deletes_are_forgotten_and_young_ones_kept(
    local: Lake, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = few(local, 4, storage=storage)
    now = time.time_ns
    age = int(timedelta(days=8).total_seconds()) * 10**9
    with monkeypatch.context() as earlier:
        earlier.setattr(time, "time_ns", lambda: now() - age)
        delete(local, stream, 4, 1)
    delete(local, stream, 5, 2)
    assert recorded(stream) == 2
    before = memory_of(stream).state()
    assert stream.maintain(60).records == 1 and recorded(stream) == 1
    assert memory_of(stream).state() == before
    assert stream.maintain(60).records == 0
    late = row(6, topic=TOPIC, n=7, _position_major=1, _position_minor=1) | {"id": 2}
    stream.commit(write(local, section([late], of=contract())), gaps=no_gaps, now_ms=NOW)
    assert held(local, "docs", "id") == [(0,), (3,)]
    assert [n for (n,) in held(local, "docs_changes", "_offset")] == list(range(7))

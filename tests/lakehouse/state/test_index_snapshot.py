"""An index that is restored answers as one built from the table; one that cannot be trusted is built from the table."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator

import obstore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.model import Storage
from lakehouse import upkeep
from lakehouse.commit import StreamTables
from lakehouse.lake import Lake
from lakehouse.merge import compaction, kept_index
from lakehouse.merge.index_snapshot import FOLDER, IndexSnapshots, remove_leftovers
from lakehouse.merge.merge_table import MergeTable
from lakehouse.state.table import StateTable
from tests.lakehouse.rows import NOW, no_gaps, row, section, tables, write
from tests.lakehouse.state.source import TOPIC, Source, contract
from tests.lakehouse.state.test_state_laws import LAW, STORAGES, deliver, held, verify

Harm = Callable[[Lake, str], None]


@pytest.fixture(autouse=True, scope="module")
def always_due() -> Iterator[None]:
    """Let every call of upkeep look at every table and write a snapshot, and take few files for many."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("EVERY", "PRESSING_EVERY", "APPENDED_EVERY", "FORGET_EVERY", "ASKED_EVERY"):
            patch.setattr(upkeep, name, 0.0)
        patch.setattr(compaction, "SMALL_COUNT", 2)
        patch.setattr(kept_index, "ENTRIES", 0)
        patch.setattr(kept_index, "SHARE", 0.0)
        yield


def keep(stream: StreamTables) -> None:
    """Write the snapshots that are due."""
    for table in state_tables(stream):
        table.indexed.keep()
        table.indexed.kept.wait()
        table.indexed.keep()  # raises what was met


def state_tables(stream: StreamTables) -> list[StateTable]:
    return [table for table in stream.tables if isinstance(table, StateTable)]


def commit(lake: Lake, stream: StreamTables, first: int, last: int, **values: int) -> StreamTables:
    """Commit one row per offset, its id that offset; with `add` the same ids again."""
    add = values.pop("add", 0)
    made = [row(n + add, topic=TOPIC, n=n + add, **values) | {"id": n} for n in range(first, last)]
    for each in made:
        del each["email"]
    stream.commit(write(lake, section(made, of=contract())), gaps=no_gaps, now_ms=NOW)
    return stream


def snapshots(lake: Lake, table: str = "docs") -> list[str]:
    found = obstore.list(lake.objects, f"{FOLDER}/{table}/").collect()
    return sorted(entry["path"] for entry in found)


def scanned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count the files of the current table that are read to fill the index."""
    seen, scan = [], MergeTable.scan

    def counted(self: MergeTable, number: int, columns: object = None) -> object:
        if self.name == "docs":
            seen.append(self.files()[number].path)
        return scan(self, number, columns)

    monkeypatch.setattr(MergeTable, "scan", counted)
    return seen


def test_a_start_reads_only_the_files_that_the_snapshot_does_not_know(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = commit(lake, tables(lake, contract()), 0, 100)
    commit(lake, stream, 100, 200)
    keep(stream)
    assert len(snapshots(lake)) == 1
    commit(lake, stream, 200, 300)
    seen = scanned(monkeypatch)
    again = commit(lake, tables(lake, contract()), 50, 250, add=1000)
    assert len(seen) == 1
    assert held(lake, "docs", "id, n") == [(n, n + 1000 if 50 <= n < 250 else n) for n in range(300)]
    keep(again)
    assert len(snapshots(lake)) == 1


def test_the_rows_that_a_commit_copies_are_followed_and_not_read_again(
    local: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = contract(storage=Storage.COPY_ON_WRITE)
    stream = commit(local, tables(local, of), 0, 100)
    seen = scanned(monkeypatch)
    for turn in range(1, 4):
        commit(local, stream, 20 * turn, 20 * turn + 30, add=1000 * turn)
    assert seen == []
    newest = {n: n + 1000 * turn for turn in range(1, 4) for n in range(20 * turn, 20 * turn + 30)}
    assert held(local, "docs", "id, n") == [(n, newest.get(n, n)) for n in range(100)]
    keep(stream)
    again = commit(local, tables(local, of), 0, 100, add=9000)
    assert seen == [] and held(local, "docs", "id, n") == [(n, n + 9000) for n in range(100)]
    assert again.anchor.version == stream.anchor.version + 1


def cut(lake: Lake, path: str) -> None:
    data = lake.get(path) or b""
    lake.put(path, data[: len(data) // 2])


def flip(at: float) -> Harm:
    def harm(lake: Lake, path: str) -> None:
        data = bytearray(lake.get(path) or b"")
        data[int(at * (len(data) - 1))] ^= 0x10
        lake.put(path, bytes(data))

    return harm


def empty(lake: Lake, path: str) -> None:
    lake.put(path, b"")


def longer(lake: Lake, path: str) -> None:
    lake.put(path, (lake.get(path) or b"") + bytes(8))


def missing(lake: Lake, path: str) -> None:
    obstore.delete(lake.objects, path)


HARMS = {
    "truncated": cut, "empty": empty, "longer": longer, "missing": missing, "magic": flip(0), "header": flip(0.02),
    "middle": flip(0.5), "last byte": flip(1),
}  # fmt: skip


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_damaged_snapshot_is_none(local: Lake, harm: Harm, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = commit(local, tables(local, contract()), 0, 100)
    keep(stream)
    for path in [*snapshots(local), *snapshots(local, "docs_history")]:
        harm(local, path)
    seen = scanned(monkeypatch)
    commit(local, tables(local, contract()), 0, 100, add=1000)
    assert len(seen) == 1
    assert held(local, "docs", "id, n") == [(n, n + 1000) for n in range(100)]


def state_of(lake: Lake) -> tuple[IndexSnapshots, MergeTable]:
    stream = commit(lake, tables(lake, contract()), 0, 100)
    keep(stream)
    return IndexSnapshots(lake, "docs", ["id"]), stream.anchor


def test_a_snapshot_holds_only_for_its_table_its_versions_and_its_keys(local: Lake) -> None:
    kept, table = state_of(local)
    version = table.version
    state = kept.read(table.table_id, version)
    assert state is not None and sum(map(len, state.runs)) == 100
    assert kept.read(table.table_id, version + 5) is not None
    assert kept.read("another", version) is None
    assert kept.read(table.table_id, version - 1) is None
    assert IndexSnapshots(local, "docs", ["id", "n"]).read(table.table_id, version) is None


def test_a_snapshot_of_another_history_of_the_same_table_is_none(local: Lake) -> None:
    kept, table = state_of(local)
    path = f"docs/_delta_log/{table.version:020}.json"
    log = local.get(path) or b""
    local.put(path, log.replace(b'"timestamp":1', b'"timestamp":2'))
    assert kept.read(table.table_id, table.version) is None
    obstore.delete(local.objects, path)
    assert kept.read(table.table_id, table.version) is None


def test_a_file_with_fewer_deleted_rows_than_the_snapshot_knows_is_read_again(
    local: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, table = state_of(local)
    state = kept.read(table.table_id, table.version)
    assert state is not None
    missing(local, snapshots(local)[0])  # of two snapshots of one version nothing says which is the newer
    kept.write(dataclasses.replace(state, files={path: (n, 5) for path, (n, _) in state.files.items()}))
    seen = scanned(monkeypatch)
    commit(local, tables(local, contract()), 0, 100, add=1000)
    assert len(seen) == 1
    assert held(local, "docs", "id, n") == [(n, n + 1000) for n in range(100)]


def test_a_snapshot_that_many_commits_and_compactions_have_left_behind_still_serves(local: Lake) -> None:
    source = Source(3, contract(), keys=60)
    source.run(400)
    saved: dict[str, bytes] = {}

    def between(stream: StreamTables) -> None:
        keep(stream)
        for table in ("docs", "docs_history", "_tidegate/memory/docs"):
            for path in snapshots(local, table):
                if not any(known.startswith(f"{FOLDER}/{table}/") for known in saved):
                    saved[path] = local.get(path) or b""
        done = stream.maintain(60)
        assert not done.failures
        for table in ("docs", "docs_history", "_tidegate/memory/docs"):
            for path in snapshots(local, table):
                if path not in saved:
                    local.delete([path])  # unless the thread that writes the next has done it
        for path, data in saved.items():
            local.put(path, data)

    deliver(source, local, commits=20, between=between)
    verify(source, local)
    assert len(saved) == 3


@given(st.integers(0, 10**9), st.integers(2, 8), st.booleans(), st.sampled_from([None, *HARMS.values()]), STORAGES)
@LAW
def test_the_laws_hold_with_snapshots_restored_stale_or_damaged_at_restarts(
    seed: int, commits: int, composite: bool, harm: Harm | None, storage: Storage
) -> None:
    source = Source(seed, contract(composite, storage=storage))
    source.run(source.random.randint(1, 40))

    def between(stream: StreamTables) -> None:
        if source.random.random() < 0.5:
            keep(stream)
        if source.random.random() < 0.5:
            stream.maintain(60)
            for table in state_tables(stream):
                table.indexed.kept.wait()
        for path in snapshots(stream_lake) if harm and source.random.random() < 0.5 else ():
            harm(stream_lake, path)

    with tempfile.TemporaryDirectory() as folder:
        stream_lake = Lake.open(folder)
        deliver(source, stream_lake, commits=commits, between=between)
        verify(source, stream_lake)


def test_old_snapshots_and_those_of_tables_that_are_gone_are_removed(lake: Lake) -> None:
    from datetime import UTC, datetime, timedelta

    kept, table = state_of(lake)
    newest = snapshots(lake)
    data = lake.get(newest[0]) or b""
    old, gone = f"{FOLDER}/docs/{0:020}-a.idx", f"{FOLDER}/lost/{0:020}-b.idx"
    lake.put(old, data)
    lake.put(gone, data)
    later = datetime.now(UTC) + timedelta(seconds=5)
    assert remove_leftovers(lake, later - timedelta(hours=1)).removed == 0
    assert remove_leftovers(lake, later, dry_run=True).removed == 2 and lake.exists(old)
    assert remove_leftovers(lake, later).removed == 2
    assert not lake.exists(old) and not lake.exists(gone) and snapshots(lake) == newest
    assert kept.read(table.table_id, table.version) is not None


def test_a_snapshot_that_cannot_be_written_is_told_once(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = commit(local, tables(local, contract()), 0, 100)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(IndexSnapshots, "write", full)
        stream.maintain(60)
        for table in state_tables(stream):
            table.indexed.kept.wait()
        assert "OSError: no space left on device" in stream.maintain(60).failures
    assert not stream.maintain(60).failures
    commit(local, stream, 0, 100, add=1000)
    assert held(local, "docs", "id, n") == [(n, n + 1000) for n in range(100)]

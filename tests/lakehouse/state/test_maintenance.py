"""Maintenance from outside deletes only what nobody needs, at any time, and rewrites only where no writer is."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from lakehouse import maintenance
from lakehouse.commit import StreamTables
from lakehouse.drift import read_drift, record_drift
from lakehouse.errors import ClockDiffers, LakehouseError, LakeUnavailable
from lakehouse.lake import Lake
from lakehouse.maintained import Maintained
from lakehouse.maintenance import Job, Orders, StreamDone, maintain_lake, maintain_stream, verify_clock
from lakehouse.merge import compaction
from lakehouse.merge.log_cleanup import clean_log
from lakehouse.merge.merge_table import MergeTable
from lakehouse.parking import Parking
from lakehouse.progress import Writer
from lakehouse.upkeep import Requests
from tests.lakehouse.rows import NOW, no_gaps, reject, row, section, tables, write
from tests.lakehouse.state.source import TOPIC, Source, contract
from tests.lakehouse.state.test_state_laws import LAW, deliver, held, verify

NONE, HOUR = timedelta(0), timedelta(hours=1)
KINDS = ("docs_quarantine", "docs_changes", "_tidegate/memory/docs", "docs_history", "docs")


@pytest.fixture(autouse=True, scope="module")
def at_once() -> Iterator[None]:
    """Take everything for old that is there, few files for many, few commits for a long log."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maintenance, "SHORTEST_RETENTION", NONE)
        patch.setattr(maintenance, "QUIET", NONE)
        patch.setattr(maintenance, "CHECKPOINT_AFTER", 2)
        patch.setattr(compaction, "SMALL_COUNT", 2)
        yield


def filled(lake: Lake, commits: int = 4) -> tuple[Source, StreamTables]:
    source = Source(4, contract(), keys=20)
    source.run(50)
    return source, deliver(source, lake, commits=commits)


def maintain(lake: Lake, job: Job = Job.ENDED, retention: timedelta = NONE, **orders: Any) -> StreamDone:
    time.sleep(0.02)  # clocks of files and commits are in ms
    return maintain_stream(lake, contract(), "test", Orders(retention, **orders), job)


def twice(lake: Lake) -> list[StreamDone]:
    """Maintain a second time: only now the checkpoint of the first is older than the retention."""
    return [maintain(lake), maintain(lake)]


def objects(lake: Lake, below: str = "") -> dict[str, int]:
    entries = obstore.list(lake.objects, f"{below}/" if below else None).collect()
    return {entry["path"]: entry["size"] for entry in entries}


def log_versions(lake: Lake, table: str) -> list[int]:
    names = (path.rpartition("/")[2] for path in objects(lake, f"{table}/_delta_log"))
    return sorted(int(name[:20]) for name in names if name.endswith(".json") and name[:20].isdigit())


def change(lake: Lake, stream: StreamTables, offset: int, *, rejected: bool = False) -> None:
    """Commit one more record of a stream whose partition 9 is its own."""
    rows = [] if rejected else [row(offset, 9, TOPIC, id=1000 + offset, n=offset)]
    for made in rows:
        del made["email"]
    rejects = [reject(offset, 9, TOPIC)] if rejected else []
    stream.commit(write(lake, section(rows, rejects, of=contract())), gaps=no_gaps, now_ms=NOW)


def test_tables_without_a_writer_end_with_few_files_a_short_log_and_nothing_old(lake: Lake) -> None:
    source, stream = filled(lake)
    before = objects(lake)
    done = twice(lake)
    assert not any(one.failed or one.asked for one in done)
    assert sum(table.compacted for table in done[0].tables) > 0 and not any(t.compacted for t in done[1].tables)
    verify(source, lake)
    for name in ("docs_changes", "docs", "docs_history"):
        files = {path for path in objects(lake, name) if "_delta_log" not in path}
        delta = DeltaTable(lake.table_uri(name), storage_options=dict(lake.storage_options))
        live = {f"{name}/{uri.rpartition('/')[2]}" for uri in delta.file_uris()}
        assert {path for path in files if path.endswith(".parquet")} == live and len(live) == 1
        assert not any(path.endswith(".bin") for path in files)
        assert log_versions(lake, name)[0] > 0
    assert len(objects(lake)) < len(before)
    for writer in (stream, tables(lake, contract())):  # one that has followed the log before, and a new one
        change(lake, writer, 0 if writer is stream else 1)
    assert held(lake, "docs", "id", "id >= 1000") == [(1000,), (1001,)]


def test_a_writer_that_opens_a_table_seldom_goes_on_after_its_log_was_cleaned_up(local: Lake) -> None:
    _, stream = filled(local)
    for offset in range(3):
        change(local, stream, offset, rejected=True)
    for _ in range(6):  # the table is far ahead of the writer's snapshot now
        DeltaTable(local.table_uri("docs_quarantine")).optimize.compact()
        other = tables(local, contract())
        other.prepare()
        quarantine = other.tables[0]
        state = quarantine.state()
        assert state is not None
        quarantine.apply_progress({}, state)
    twice(local)
    assert log_versions(local, "docs_quarantine")[0] > stream.tables[0].version
    change(local, stream, 3, rejected=True)
    assert held(local, "docs_quarantine", "_offset") == [(0,), (1,), (2,), (3,)]


@given(st.integers(0, 10**9), st.integers(2, 8), st.sampled_from(Job))
@LAW
def test_the_laws_hold_with_maintenance_between_the_commits_of_a_writer(seed: int, commits: int, job: Job) -> None:
    source = Source(seed, contract())
    source.run(source.random.randint(1, 40))
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)

        def between(_: StreamTables) -> None:
            if source.random.random() < 0.6:
                assert not maintain(lake, job).failed

        deliver(source, lake, commits=commits, between=between)
        verify(source, lake)


def test_tables_with_a_running_writer_are_left_to_it_and_it_is_asked(lake: Lake) -> None:
    source, stream = filled(lake)
    done = maintain(lake, Job.RUNS)
    worn = [table for table in done.tables if table.note]
    assert done.asked and {"docs", "docs_changes"} <= {table.table for table in worn}
    assert all(table.note == "left to its writer: the job runs" for table in worn)
    assert not any(table.compacted for table in done.tables) and Requests(lake, "test").standing("docs")
    while Requests(lake, "test").standing("docs"):
        upkept = stream.maintain(60)
        assert not upkept.failures
        stream._upkeep._look = 0  # type: ignore[union-attr]
    again = maintain(lake, Job.RUNS)
    assert not again.asked and not Requests(lake, "test").standing("docs")
    verify(source, lake)


def test_a_parked_stream_has_no_writer_though_the_job_runs(local: Lake) -> None:
    source, _ = filled(local)
    Parking(local, "test").park("docs", "paused")
    done = maintain(local, Job.RUNS)
    assert sum(table.compacted for table in done.tables) > 0 and not done.asked
    verify(source, local)


@pytest.mark.parametrize(("job", "said"), [(Job.UNKNOWN, "nobody says"), (Job.ENDED, "the newest commit is only")])
def test_a_young_commit_counts_as_a_writer(local: Lake, monkeypatch: pytest.MonkeyPatch, job: Job, said: str) -> None:
    filled(local)
    monkeypatch.setattr(maintenance, "QUIET", timedelta(minutes=1))
    done = maintain(local, job)
    assert done.asked and any(said in table.note for table in done.tables)


def test_files_that_were_only_rewritten_are_no_sign_of_a_writer(local: Lake) -> None:
    filled(local)
    maintain(local)
    time.sleep(0.25)
    DeltaTable(local.table_uri("docs")).optimize.compact()
    table = MergeTable(local, *_shape("docs"), Writer("test"))
    assert table.open() and time.time() * 1000 - maintenance._written_ms(local, table) > 200


def _shape(name: str) -> Any:
    from lakehouse.kinds import CURRENT
    from lakehouse.shape import shape_of

    return CURRENT, shape_of(CURRENT, contract(), {})


def test_every_version_of_the_retention_stays_readable(lake: Lake) -> None:
    filled(lake)
    options = dict(lake.storage_options)
    newest = {name: DeltaTable(lake.table_uri(name), storage_options=options).version() for name in KINDS[1:]}
    for _ in range(2):
        done = maintain(lake, retention=HOUR)
        assert not any(t.vacuumed.data_files or t.log.entries for t in done.tables)
    for name, last in newest.items():
        for version in range(last + 1):
            assert _rows(lake, name, version) >= 0


def _rows(lake: Lake, name: str, version: int) -> int:
    from deltalake import QueryBuilder

    table = DeltaTable(lake.table_uri(name), version=version, storage_options=dict(lake.storage_options))
    return len(QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all())


def test_a_retention_below_the_longest_commit_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "SHORTEST_RETENTION", HOUR)
    with pytest.raises(
        ValueError, match=r"0:59:00 is too short: files of commits that are under way.*at least 1:00:00"
    ):
        Orders(timedelta(minutes=59))
    assert Orders(HOUR).retention == HOUR


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(lake: Lake) -> None:
    filled(lake)
    before = objects(lake)
    dry = maintain(lake, dry_run=True)
    shared = maintain_lake(lake, [contract()], "test", Orders(NONE, dry_run=True))
    assert objects(lake) == before
    assert dry.tables and shared.segments.deleted > 0
    real = maintain(lake)
    assert [(t.table, t.compacted, t.checkpoint) for t in dry.tables] == [
        (t.table, t.compacted, t.checkpoint) for t in real.tables
    ]


def test_two_at_once_and_a_writer_beside_them_do_no_harm(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns
    with monkeypatch.context() as earlier:
        earlier.setattr(time, "time_ns", lambda: now() - 3 * 3600 * 10**9)
        source, stream = filled(local)
    for path in Path(local.uri).rglob("*"):
        os.utime(path, (time.time() - 3 * 3600,) * 2)
    begun = threading.Barrier(3)

    def outsider() -> list[StreamDone]:
        begun.wait()
        return [maintain(local, retention=HOUR) for _ in range(3)]

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(outsider) for _ in range(2)]
        begun.wait()
        for offset in range(6):
            change(local, stream, offset, rejected=offset % 2 == 1)
        done = [table for one in both for stream_done in one.result() for table in stream_done.tables]
    assert [said for table in done for said in table.failures] == []
    assert sum(table.vacuumed.vector_files for table in done) > 0
    assert held(local, "docs", "id", "id >= 1000") == [(1000,), (1002,), (1004,)]
    assert held(local, "docs_changes", "_offset", "_partition = 9") == [(0,), (2,), (4,)]
    assert held(local, "docs", "id", "id < 1000") == sorted((*key,) for key in source.rows)


class Killed(BaseException):
    """The process ends."""


@pytest.mark.parametrize(("verb", "points"), [("put", (0, 3, 7, 11, 14)), ("delete", (0, 2, 5))])
def test_killed_at_a_write_or_a_deletion_it_leaves_nothing_wrong(
    local: Lake, monkeypatch: pytest.MonkeyPatch, verb: str, points: Sequence[int]
) -> None:
    source, stream = filled(local, commits=3)
    whole, killed = getattr(obstore, verb), 0
    for turn, point in enumerate(points):
        left = [point]

        def killing(*given: Any, left: list[int] = left, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return whole(*given, **options)

        with monkeypatch.context() as patched:
            patched.setattr(obstore, verb, killing)
            try:
                maintain(local)
                maintain_lake(local, [contract()], "test", Orders(NONE))
            except Killed:
                killed += 1
        change(local, stream, 2 * turn)
        change(local, stream, 2 * turn + 1, rejected=True)
    assert killed >= 2
    assert not maintain(local).failed
    assert [key for (key,) in held(local, "docs", "id", "id < 1000")] == sorted(key for (key,) in source.rows)
    assert [n for (n,) in held(local, "docs", "id - 1000", "id >= 1000")] == list(range(0, 2 * len(points), 2))
    assert len(held(local, "docs_quarantine", "_offset", "_partition = 9")) == len(points)


def test_what_fails_for_one_table_does_not_stop_the_others_and_is_told(
    local: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(local)

    def away(lake: Lake, table: str, *_: Any, **__: Any) -> Any:
        if table == "docs_changes":
            raise LakeUnavailable("away")
        return vacuum(lake, table, NONE)

    vacuum = maintenance.vacuum
    monkeypatch.setattr(maintenance, "vacuum", away)
    local.put("docs_history/_delta_log/00000000000000000099.json", b"no json")
    local.put("docs_history/_delta_log/_last_checkpoint", b'{"version": 99}')
    done = {table.table: table for table in maintain(local).tables}
    assert done["docs_changes"].failures == ["away"] and done["docs_changes"].compacted
    assert not done["docs"].failures and done["docs"].vacuumed.data_files
    record = Maintained(local, "test").read("docs")
    assert record is not None and record.tables["docs_changes"].failure == "away"


def test_a_race_that_is_lost_is_no_failure(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    source, stream = filled(local)
    rewrite = MergeTable.rewrite

    def racing(table: MergeTable, *given: Any, **options: Any) -> Any:
        with monkeypatch.context() as calm:
            calm.setattr(MergeTable, "rewrite", rewrite)
            change(local, stream, racing.offset)
        racing.offset += 1
        return rewrite(table, *given, **options)

    racing.offset = 0
    with monkeypatch.context() as patched:
        patched.setattr(MergeTable, "rewrite", racing)
        done = {table.table: table for table in maintain(local).tables}
    assert done["docs"].note == "left to its writer: it committed meanwhile" and not done["docs"].failures
    assert {key for (key,) in held(local, "docs", "id", "id < 1000")} == {key for (key,) in source.rows}


def test_what_was_done_last_is_recorded_and_when_files_were_last_rewritten(lake: Lake) -> None:
    filled(lake)
    first = Maintained(lake, "test").read("docs")
    assert first is None
    maintain(lake)
    second = Maintained(lake, "test").read("docs")
    maintain(lake)
    third = Maintained(lake, "test").read("docs")
    assert second is not None and third is not None
    assert second.tables["docs"].compacted_ms and second.tables["docs"].compacted > 0
    assert third.at_ms > second.at_ms and third.tables["docs"].compacted == 0
    assert third.tables["docs"].compacted_ms == second.tables["docs"].compacted_ms
    lake.put("_tidegate/maintenance/test/done/docs.json", b'{"from": "the future"}')
    assert Maintained(lake, "test").read("docs") is None


def test_segments_go_when_every_stream_has_them_and_stay_while_a_streams_progress_is_unknown(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(lake)
    segments = len(objects(lake, "_tidegate/segments"))
    with monkeypatch.context() as patched:

        def broken(*_: Any) -> Any:
            raise LakehouseError("unreadable")

        patched.setattr(maintenance, "standing_of", broken)
        done = maintain_lake(lake, [contract()], "test", Orders(NONE))
        assert done.failures == ("unreadable",) and done.segments.deleted == 0
    time.sleep(0.02)
    done = maintain_lake(lake, [contract()], "test", Orders(NONE))
    assert not done.failures and done.segments.deleted == segments and not objects(lake, "_tidegate/segments")


def test_the_table_of_drift_is_kept_small_too(lake: Lake) -> None:
    notes = [{"stream": "docs", "kind": "column_added", "column": f"c{n}"} for n in range(12)]
    for n, note in enumerate(notes):
        record_drift(lake, [{**note, "seen_at": NOW + n}])
    for _ in range(2):
        time.sleep(0.02)
        done = maintain_lake(lake, [], "test", Orders(NONE))
        assert done.drift is not None and not done.drift.failures
    assert len([path for path in objects(lake, "_tidegate/drift") if path.endswith(".parquet")]) <= 2
    assert log_versions(lake, "_tidegate/drift")[0] > 0
    assert len(read_drift(lake)) == 12
    record_drift(lake, [{**notes[0], "column": "later", "seen_at": NOW}])
    assert len(read_drift(lake)) == 13


def test_the_newest_commit_of_the_pipeline_stays_in_the_log_whoever_committed_since(local: Lake) -> None:
    _, stream = filled(local)
    mine = stream.anchor.version
    for n in range(12):
        DeltaTable(local.table_uri("docs")).alter.set_table_properties({f"other.{n}": "x"}, raise_if_not_exists=False)
    DeltaTable(local.table_uri("docs")).create_checkpoint()
    time.sleep(0.02)
    assert clean_log(local, "docs", NONE).entries > 0 or log_versions(local, "docs")[0] <= mine
    assert log_versions(local, "docs")[0] <= mine
    change(local, tables(local, contract()), 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("delta.logRetentionDuration", "interval 30 days"),
        ("delta.logRetentionDuration", "interval 2 weeks and more"),
        ("delta.enableExpiredLogCleanup", "false"),
    ],
)
def test_a_table_may_ask_for_a_longer_log(local: Lake, name: str, value: str) -> None:
    filled(local)
    twice(local)
    DeltaTable(local.table_uri("docs")).create_checkpoint()
    first = log_versions(local, "docs")[0]
    log = MergeTable(local, *_shape("docs"), Writer("test"))
    assert log.open()
    metadata = {**log._open_snapshot.metadata, "configuration": {**log._open_snapshot.configuration, name: value}}
    log._commit([{"commitInfo": {"operation": "SET TBLPROPERTIES", "txnId": "x"}}, {"metaData": metadata}])
    change(local, tables(local, contract()), 0)
    DeltaTable(local.table_uri("docs")).create_checkpoint()
    time.sleep(0.02)
    assert clean_log(local, "docs", NONE).entries == 0 and log_versions(local, "docs")[0] == first


def test_a_clock_that_is_not_the_stores_is_refused(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    verify_clock(lake, "test")
    monkeypatch.setattr(maintenance, "CLOCKS_DIFFER", timedelta(seconds=-1))
    with pytest.raises(ClockDiffers, match="Set the clock right"):
        verify_clock(lake, "test")


@pytest.mark.parametrize("full", [False, True], ids=["lite", "full"])
def test_no_vacuum_of_delta_rs_destroys_a_live_file_of_any_table(lake: Lake, full: bool) -> None:
    source, stream = filled(lake)
    time.sleep(0.02)
    for name in KINDS:
        delta = DeltaTable(lake.table_uri(name), storage_options=dict(lake.storage_options))
        delta.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=full)
    verify(source, lake)
    change(lake, stream, 0)
    assert not maintain(lake).failed
    assert held(lake, "docs", "id", "id >= 1000") == [(1000,)]


def test_tables_that_are_not_there_are_no_failure(lake: Lake) -> None:
    assert maintain(lake) == StreamDone("docs", ())
    done = maintain_lake(lake, [contract()], "test", Orders(NONE))
    assert not done.failures and done.drift is None

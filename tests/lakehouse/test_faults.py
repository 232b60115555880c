"""What may happen to tables and storage while a pipeline runs: each offset stays once, and what is wrong is said."""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from lakehouse import appending
from lakehouse.commit import StreamTables
from lakehouse.errors import (
    DiskFull,
    EpochOver,
    KeyPinChanged,
    LakeUnavailable,
    OtherPipeline,
    PartialTable,
    RestoredTable,
    SchemaRefused,
    SegmentMissing,
    StateMissing,
    TableVanished,
    TableWentBack,
    TopicRecreated,
    TopicTruncated,
)
from lakehouse.identity import TopicIdentity
from lakehouse.lake import Lake
from lakehouse.segments import SectionRef, write_segment
from lakehouse.table import StreamTable
from tests.lakehouse.rows import (
    CONTRACT,
    NOW,
    START,
    TOPIC,
    contract,
    no_gaps,
    offsets,
    reject,
    row,
    section,
    tables,
    values,
    write,
)
from tests.lakehouse.s3_server import BUCKET, S3Server


def committed(lake: Lake, *at: int, **options: Any) -> StreamTables:
    stream = tables(lake, **options)
    stream.commit(write(lake, section([row(n) for n in at])), gaps=no_gaps, now_ms=NOW)
    return stream


# -- two writers --


def test_racing_threads_give_each_offset_once(lake: Lake) -> None:
    refs = write(lake, *(section([row(n), row(n, partition=1)], [reject(n, partition=2)]) for n in range(20)))
    tables(lake).prepare()
    reports: list[int] = []

    def run(mine: Sequence[SectionRef]) -> None:
        stream = tables(lake)
        for ref in mine:
            reports.append(stream.commit([ref], gaps=no_gaps, now_ms=NOW).retries)

    threads = [threading.Thread(target=run, args=(refs,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 60, "a committer died"
    assert offsets(lake) == [(p, n) for p in (0, 1) for n in range(20)]
    assert offsets(lake, "orders_quarantine") == [(2, n) for n in range(20)]


def _commit_all(lake: Lake, texts: Sequence[str]) -> None:
    stream = tables(lake)
    for text in texts:
        stream.commit([SectionRef.from_text(text)], gaps=no_gaps, now_ms=NOW)


def test_racing_processes_give_each_offset_once(lake: Lake) -> None:
    refs = write(lake, *(section([row(n), row(n, partition=1)], [reject(n, partition=2)]) for n in range(10)))
    texts = [ref.to_text() for ref in refs]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_commit_all, args=(lake, texts)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert offsets(lake) == [(p, n) for p in (0, 1) for n in range(10)]
    assert offsets(lake, "orders_quarantine") == [(2, n) for n in range(10)]


@pytest.mark.parametrize("begun", [False, True])
def test_a_copy_that_starts_while_another_commits_takes_no_table_for_an_older_one(
    local: Lake, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    other, numbers = tables(local), iter(range(100))

    def commit() -> None:
        number = next(numbers)
        other.commit(write(local, section([row(number)], [reject(number, partition=1)])), gaps=no_gaps, now_ms=NOW)

    if begun:
        commit()
    opened, inside = StreamTable.open, [False]

    def open_later(table: StreamTable) -> bool:
        if not inside[0]:
            inside[0] = True
            commit()
            inside[0] = False
        return opened(table)

    monkeypatch.setattr(StreamTable, "open", open_later)
    tables(local).prepare()
    done = next(numbers)
    assert done >= 4, "nothing was committed between two looks at the tables"
    assert offsets(local) == [(0, number) for number in range(done)]


def test_a_zombie_with_an_old_snapshot_adds_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    zombie = committed(lake, 0)
    refs = write(lake, section([row(1)], [reject(2)]))
    tables(lake).commit(refs, gaps=no_gaps, now_ms=NOW)
    with monkeypatch.context() as blind:  # it planned before the other committed, and writes only now
        opened, looks = zombie.anchor.open, iter([True])
        blind.setattr(zombie.anchor, "open", lambda: next(looks, False) or opened())
        report = zombie.commit(refs, gaps=no_gaps, now_ms=NOW)
    assert report.retries == 1 and report.rows == 0
    assert offsets(lake) == [(0, 0), (0, 1)]
    assert offsets(lake, "orders_quarantine") == [(0, 2)]


def test_commits_of_others_are_looked_past(lake: Lake) -> None:
    stream = committed(lake, 0)
    stream.commit(write(lake, section([row(1, event_ms=START + 90_000)])), gaps=no_gaps, now_ms=NOW)
    other = DeltaTable(lake.table_uri("orders_changes"), storage_options=dict(lake.storage_options))
    other.optimize.compact()
    other.alter.set_table_description("by somebody else")
    for again in (stream, tables(lake)):
        assert again.commit([], gaps=no_gaps, now_ms=NOW).watermark_ms == START + 80_000
    stream.commit(write(lake, section([row(2)])), gaps=no_gaps, now_ms=NOW)
    assert offsets(lake) == [(0, 0), (0, 1), (0, 2)]


# -- failures in the middle --


def test_a_crash_between_two_tables_is_made_good_by_the_retry(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = committed(lake, 0)
    refs = write(lake, section([row(1)], [reject(2)]))
    with monkeypatch.context() as crash:
        crash.setattr(stream.anchor, "apply", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            stream.commit(refs, gaps=no_gaps, now_ms=NOW)
    assert offsets(lake, "orders_quarantine") == [(0, 2)] and offsets(lake) == [(0, 0)]
    # The replay comes in other batches than before.
    replay = write(lake, section([row(1)]), section(rejects=[reject(2), reject(3)]))
    tables(lake).commit(replay, gaps=no_gaps, now_ms=NOW)
    assert offsets(lake) == [(0, 0), (0, 1)]
    assert offsets(lake, "orders_quarantine") == [(0, 2), (0, 3)]


@pytest.mark.parametrize("landed", [True, False])
def test_after_an_ambiguous_failure_the_log_decides(lake: Lake, monkeypatch: pytest.MonkeyPatch, landed: bool) -> None:
    stream = committed(lake, 0)
    write_delta = appending.write_deltalake

    def unclear(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(appending, "write_deltalake", write_delta)
        if landed:
            write_delta(*arguments, **options)
        raise OSError("connection reset")

    refs = write(lake, section([row(1)]))
    monkeypatch.setattr(appending, "write_deltalake", unclear)
    if landed:
        assert stream.commit(refs, gaps=no_gaps, now_ms=NOW).counts["applied"] == 1
    else:
        with pytest.raises(LakeUnavailable):
            stream.commit(refs, gaps=no_gaps, now_ms=NOW)
    stream.commit(refs, gaps=no_gaps, now_ms=NOW)
    assert offsets(lake) == [(0, 0), (0, 1)]


def test_a_needed_segment_that_is_gone_is_said(local: Lake) -> None:
    refs = write(local, section([row(0)]))
    shutil.rmtree(Path(local.uri) / "_tidegate" / "segments")
    with pytest.raises(SegmentMissing, match=r"topic shop\.orders partition 0 from offset 0"):
        tables(local).commit(refs, gaps=no_gaps, now_ms=NOW)


@pytest.mark.integration
def test_an_s3_server_that_dies_and_comes_back_costs_only_time(tmp_path: Path) -> None:
    server = S3Server(tmp_path / "own")
    server.start()
    try:
        lake = Lake.open(f"s3://{BUCKET}/fire", server.options())
        stream = committed(lake, 0)
        refs = write(lake, *(section([row(n)]) for n in range(1, 12)))
        killer = threading.Timer(0.05, server.kill)
        killer.start()
        done = 0
        for _ in range(40):
            try:
                while done < len(refs):
                    stream.commit([refs[done]], gaps=no_gaps, now_ms=NOW)
                    done += 1
                if not killer.is_alive():
                    break
            except LakeUnavailable:
                killer.join()
                server.start()
        assert done == len(refs)
        assert offsets(lake) == [(0, n) for n in range(12)]
    finally:
        server.kill()


# -- tables that are not what they were --


def test_restore_in_the_history_stops_the_stream(lake: Lake) -> None:
    stream = committed(lake, 0)
    stream.commit(write(lake, section([row(1)])), gaps=no_gaps, now_ms=NOW)
    DeltaTable(lake.table_uri("orders_changes"), storage_options=dict(lake.storage_options)).restore(1)
    for again in (stream, tables(lake)):
        with pytest.raises(RestoredTable, match="table orders_changes: RESTORE"):
            again.commit(write(lake, section([row(2)])), gaps=no_gaps, now_ms=NOW)


def test_a_table_that_vanishes_is_never_created_again(local: Lake) -> None:
    running = committed(local, 0)
    shutil.rmtree(Path(local.uri) / "orders_changes")
    refs = write(local, section([row(1)], [reject(2)]))
    with pytest.raises(TableVanished, match="table orders_changes is gone, it was at version 1"):
        running.commit(refs, gaps=no_gaps, now_ms=NOW)
    assert local.tables() == ["orders_quarantine"]


def test_a_table_that_vanished_while_stopped_is_missed_by_the_others(local: Lake) -> None:
    committed(local, 0).commit(write(local, section([row(1)], [reject(2)])), gaps=no_gaps, now_ms=NOW)
    shutil.rmtree(Path(local.uri) / "orders_quarantine")
    with pytest.raises(TableVanished, match="table orders_quarantine is gone"):
        tables(local).prepare()
    assert local.tables() == ["orders_changes"]


def test_an_older_copy_of_a_table_is_refused_while_running(local: Lake, tmp_path: Path) -> None:
    stream = committed(local, 0)
    table = Path(local.uri) / "orders_changes"
    shutil.copytree(table, tmp_path / "copy")
    stream.commit(write(local, section([row(1)])), gaps=no_gaps, now_ms=NOW)
    shutil.rmtree(table)
    shutil.copytree(tmp_path / "copy", table)
    with pytest.raises(TableWentBack, match="at version 1, it was at version 2"):
        stream.commit(write(local, section([row(2)])), gaps=no_gaps, now_ms=NOW)


def test_an_older_quarantine_is_refused_at_the_start(local: Lake, tmp_path: Path) -> None:
    stream = committed(local, 0)
    table = Path(local.uri) / "orders_quarantine"
    shutil.copytree(table, tmp_path / "copy")
    stream.commit(write(local, section([row(2)], [reject(1)])), gaps=no_gaps, now_ms=NOW)
    shutil.rmtree(table)
    shutil.copytree(tmp_path / "copy", table)
    with pytest.raises(TableWentBack, match="table orders_quarantine is at version 0"):
        tables(local).prepare()


def test_another_pipeline_may_not_fill_the_same_tables(lake: Lake) -> None:
    committed(lake, 0)
    with pytest.raises(OtherPipeline, match="filled by pipeline test, not by second"):
        tables(lake, pipeline="second").prepare()


def test_a_log_without_our_commits_is_not_guessed_at(local: Lake) -> None:
    committed(local, 0)
    table = DeltaTable(local.table_uri("orders_changes"))
    table.alter.set_table_description("by somebody else")
    table.create_checkpoint()
    for version in (0, 1):
        (Path(local.uri) / f"orders_changes/_delta_log/{version:020}.json").unlink()
    with pytest.raises(StateMissing, match="older log entries are gone"):
        tables(local).prepare()


# -- contracts that change --


def test_columns_that_the_contract_gained_are_added(lake: Lake) -> None:
    from contracts.model import Field
    from contracts.types import parse_type

    old = committed(lake, 0)
    wider = contract(fields=(*CONTRACT.fields, Field("seen", "seen", parse_type("timestamp"))))
    rows = section([row(1, seen=5)], of=wider)
    tables(lake, wider).commit(write(lake, rows), gaps=no_gaps, now_ms=NOW)
    old.commit(write(lake, section([row(2)])), gaps=no_gaps, now_ms=NOW)  # a copy that has not been upgraded yet
    assert [seen is None for (seen,) in values(lake, "seen")] == [True, False, True]


@pytest.mark.parametrize(
    "changed",
    [
        {"fields": CONTRACT.fields[:-1]},
        {"partition_by": ("_partition",)},
        {"fields": (*CONTRACT.fields[:-1], CONTRACT.fields[0].__class__("note", "note", CONTRACT.fields[0].type))},
    ],
)
def test_any_other_change_of_columns_is_refused_with_both_schemas(local: Lake, changed: dict[str, Any]) -> None:
    committed(local, 0)
    with pytest.raises(SchemaRefused, match=r"The contract wants .* the table has"):
        tables(local, contract(**changed)).prepare()


def test_a_mask_keeps_its_key(lake: Lake) -> None:
    committed(lake, 0, pins={"email": "k1:aa"})
    tables(lake, pins={"email": "k1:aa"}).prepare()
    for pins in ({"email": "k2:bb"}, {}):
        with pytest.raises(KeyPinChanged, match="field email was masked with key k1:aa"):
            tables(lake, pins=pins).prepare()


def test_a_table_added_to_a_running_stream_is_refused_unless_partial_is_accepted(lake: Lake) -> None:
    alone = contract(tables=("quarantine",))
    tables(lake, alone).commit(write(lake, section([row(0)], [reject(1)])), gaps=no_gaps, now_ms=NOW)
    with pytest.raises(PartialTable, match="orders_changes would be new"):
        tables(lake).prepare()
    both = tables(lake, accept_partial=True)
    both.prepare()
    assert both.progress() == {(TOPIC, 0): 1}
    both.commit(write(lake, section([row(1), row(2)])), gaps=no_gaps, now_ms=NOW)
    assert offsets(lake) == [(0, 2)]


def test_a_table_that_becomes_the_anchor_is_levelled_to_the_one_before(lake: Lake) -> None:
    stream = committed(lake, 0)
    stream.commit(write(lake, section([row(2)], [reject(1)])), gaps=no_gaps, now_ms=NOW)
    stream.commit(write(lake, section([row(3)])), gaps=no_gaps, now_ms=NOW)  # the quarantine lags behind
    alone = tables(lake, contract(tables=("quarantine",)))
    assert alone.progress() == {(TOPIC, 0): 3}
    alone.commit(write(lake, section([row(3)], [reject(4)])), gaps=no_gaps, now_ms=NOW)
    assert offsets(lake, "orders_quarantine") == [(0, 1), (0, 4)]
    assert tables(lake).progress() == {(TOPIC, 0): 3}, "the changes table lags, and says so"


# -- topics that are not what they were --


def test_a_recreated_topic_stops_the_stream_until_a_new_epoch(lake: Lake) -> None:
    stream = tables(lake)
    stream.commit(
        write(lake, section([row(0), row(1)])), gaps=no_gaps, identity=TopicIdentity({TOPIC: "id-1"}), now_ms=NOW
    )
    recreated = TopicIdentity({TOPIC: "id-2"})
    refs = write(lake, section([row(0, _position_major=0, note="new")]))
    with pytest.raises(TopicRecreated, match=r"has id id-2, the tables were filled from id id-1.*--new-epoch"):
        stream.commit(refs, gaps=no_gaps, identity=recreated, now_ms=NOW)
    tables(lake, epochs={TOPIC: 1}).commit(refs, gaps=no_gaps, identity=recreated, now_ms=NOW)
    assert sorted(values(lake, "_offset, _epoch, _resent")) == [(0, 0, False), (0, 1, False), (1, 0, False)]
    with pytest.raises(EpochOver, match="at epoch 1 of topic"):
        stream.commit(refs, gaps=no_gaps, identity=TopicIdentity({TOPIC: "id-1"}), now_ms=NOW)


def test_a_topic_that_ends_below_our_progress_stops_the_stream(lake: Lake) -> None:
    stream = committed(lake, 0, 1, 2)
    refs = write(lake, section([row(3)]))
    with pytest.raises(TopicTruncated, match="ends at offset 2, but the tables hold it up to offset 2"):
        stream.commit(refs, gaps=no_gaps, identity=TopicIdentity({}, {(TOPIC, 0): 2}, float("inf")), now_ms=NOW)
    taken_before_our_last_commit = TopicIdentity({}, {(TOPIC, 0): 2}, 0.0)
    stream.commit(refs, gaps=no_gaps, identity=taken_before_our_last_commit, now_ms=NOW)


# -- privacy --


def test_the_log_holds_no_value_of_a_private_column(local: Lake) -> None:
    committed(local, 0, 1).commit(
        write(local, section([row(2)], [{**reject(3), "_key": "token-of-key"}])), gaps=no_gaps, now_ms=NOW
    )
    logs = "".join(path.read_text() for path in Path(local.uri).rglob("_delta_log/*.json"))
    assert "token-" not in logs
    adds = [json.loads(line)["add"] for line in logs.splitlines() if line.startswith('{"add"')]
    statistics = [json.loads(add["stats"]) for add in adds]
    assert all("email" not in s["minValues"] and "email" not in s["nullCount"] for s in statistics)
    assert any("_offset" in s["minValues"] and "amount" in s["nullCount"] for s in statistics)


# -- no space --


def _commit_into_little_space(uri: str, answers: Any) -> None:
    lake = Lake.open(uri)
    stream = committed(lake, 0)
    big = section([row(n, note=f"{n:x}" * 50) for n in range(1, 20_000)])
    refs = write(lake, big)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    for attempt in (
        lambda: stream.commit(refs, gaps=no_gaps, now_ms=NOW),
        lambda: write_segment(lake, "more", [big]),
    ):
        try:
            attempt()
            answers.put("accepted")
        except DiskFull as error:
            answers.put(str(error))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    stream.commit(refs, gaps=no_gaps, now_ms=NOW)


def test_a_full_disk_is_said_and_does_no_harm(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    uri = str(tmp_path / "lake")
    process = context.Process(target=_commit_into_little_space, args=(uri, answers))
    process.start()
    said = [answers.get(timeout=60) for _ in range(2)]
    process.join()
    assert all("start the workers again" in answer for answer in said), said
    assert offsets(Lake.open(uri)) == [(0, n) for n in range(20_000)]

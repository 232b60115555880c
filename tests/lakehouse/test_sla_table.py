"""_tidegate/sla: a row when something changed or time has passed, samples that tell a source's rate, bounded growth."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from deltalake import DeltaTable

from contracts.model import ServiceLevels
from lakehouse import sla_table
from lakehouse.anchor import AnchorState, PartitionState
from lakehouse.errors import LakehouseError
from lakehouse.freshness import Asked, Cause, Job, Past, Waiting, evaluate
from lakehouse.lake import Lake
from lakehouse.rates import HOUR_MS, HOURS, Usual, hour_of_week
from lakehouse.sla_table import EVERY_MS, SLA, TABLE, Evaluation, SlaTable
from lakehouse.standing import Standing

NOW = 470_000 * HOUR_MS
SLAS, NONE_WAIT = ServiceLevels(latency_ms=60_000), Waiting(0)


def evaluation(
    at: int,
    records: int = 0,
    heartbeats: int = 0,
    waiting: Waiting | None = NONE_WAIT,
    stream: str = "s",
    runs: bool = True,
    **last: int,
) -> Evaluation:
    counts = {"read": records + heartbeats + 1, "kind.heartbeat": heartbeats, "kind.canary": 1}
    state = {("t", 0): PartitionState(0, 0, at, active=at)}
    standing = Standing(AnchorState("p", stream, counts=counts, last_counts=last, partitions=state), {}, {}, at)
    return Evaluation(stream, evaluate(Asked(SLAS, standing, waiting, Job.RUNS if runs else Job.DOWN), at), standing)


def rows(lake: Lake) -> list[dict[str, Any]]:
    table = DeltaTable(lake.table_uri(TABLE), storage_options=dict(lake.storage_options))
    found: list[dict[str, Any]] = table.to_pyarrow_table().sort_by("evaluated_at").to_pylist()
    return found


def test_a_stream_gets_a_row_when_something_changed_or_time_has_passed(lake: Lake) -> None:
    table = SlaTable(lake, "p")
    assert table.record([evaluation(NOW)], "job", NOW) == 1
    assert table.record([evaluation(NOW + 1)], "job", NOW + 1) == 0
    late = evaluation(NOW + 2, waiting=Waiting(5, NOW - 120_000))
    assert table.record([late], "job", NOW + 2) == 1
    assert table.record([late], "supervisor", NOW + 3) == 0
    assert table.record([evaluation(NOW + 4)], "job", NOW + 4) == 1
    assert SlaTable(lake, "p").record([evaluation(NOW + 4 + EVERY_MS)], "supervisor", NOW + 4 + EVERY_MS) == 1
    found = rows(lake)
    assert list(found[0]) == SLA.names
    assert [row["colour"] for row in found] == ["green", "red", "green", "green"]
    assert [row["violated"] for row in found] == [[], ["latency"], [], []]
    assert found[1]["levels"] == [{"name": "latency", "value_ms": 120_002, "limit_ms": 60_000}]
    assert (found[1]["waiting_records"], found[1]["oldest_waiting_ms"], found[1]["cause"]) == (5, 120_002, "violated")


def test_streams_and_pipelines_do_not_meet(local: Lake) -> None:
    one, other = SlaTable(local, "p"), SlaTable(local, "q")
    assert one.record([evaluation(NOW), evaluation(NOW, stream="t")], "job", NOW) == 2
    assert other.record([evaluation(NOW)], "job", NOW) == 1
    assert other.record([evaluation(NOW)], "job", NOW) == 0


def test_writers_that_judge_the_same_at_once_say_it_once(local: Lake) -> None:
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda n: SlaTable(local, "p").record([evaluation(NOW)], "job", NOW), range(4)))
    assert sum(said) == len(rows(local)) == 1


def test_samples_tell_the_rate_only_between_two_moments_at_which_all_was_caught_up(local: Lake) -> None:
    table = SlaTable(local, "p")
    behind = Waiting(9, NOW - 10 * HOUR_MS)
    steps = [
        (100, Waiting(0), True), (700, Waiting(2, NOW + EVERY_MS * 2), True), (900, behind, True),
        (900, Waiting(0), False), (1900, Waiting(0), True), (2500, None, True), (2600, Waiting(0), True),
        (10, Waiting(0), True),
    ]  # fmt: skip
    for n, (records, waiting, runs) in enumerate(steps):
        at = NOW + n * EVERY_MS
        assert table.record([evaluation(at, records, 3, waiting, runs=runs)], "job", at) == 1
    found = rows(local)
    assert [row["sample_usable"] for row in found] == [False, True, False, False, False, False, False, False]
    assert (found[1]["sample_records"], found[1]["sample_seconds"]) == (600, 600.0)
    assert found[1]["hour_of_week"] == hour_of_week(NOW)
    assert (found[1]["records_total"], found[1]["heartbeats_total"]) == (700, 3)


def test_what_is_usual_comes_from_the_rows_of_earlier_weeks(local: Lake) -> None:
    table = SlaTable(local, "p")
    for week in (3, 2, 1):
        for n in range(4):
            at = NOW - week * HOURS * HOUR_MS + n * EVERY_MS
            records = (4 - week) * 10_000 + n * 100
            assert table.record([evaluation(at, records)], "job", at) == 1
    fresh = SlaTable(local, "p")
    standing = evaluation(NOW).standing
    assert fresh.past("s", standing, NOW) == Past(), "nothing is read before a refresh"
    fresh.refresh()
    assert fresh.past("s", standing, NOW) == Past(usual=Usual(600.0, 3))
    assert fresh.past("s", standing, NOW + HOUR_MS).usual is None
    assert fresh.past("other", standing, NOW).usual is None


def test_the_newest_heartbeat_is_when_their_number_last_grew(local: Lake) -> None:
    table = SlaTable(local, "p")
    for n, heartbeats in enumerate((1, 5, 5, 5)):
        at = NOW + n * EVERY_MS
        table.record([evaluation(at, heartbeats=heartbeats)], "job", at)
    now = NOW + 10 * EVERY_MS
    table.refresh()
    assert table.past("s", evaluation(now, heartbeats=0).standing, now).heartbeat_ms is None
    assert table.past("s", evaluation(now, heartbeats=5).standing, now).heartbeat_ms == NOW + EVERY_MS
    assert table.past("s", evaluation(now, heartbeats=6).standing, now).heartbeat_ms == now
    newest = evaluation(now - 5, heartbeats=5, **{"kind.heartbeat": 1}).standing
    assert table.past("s", newest, now).heartbeat_ms == now - 5, "of the last commit"


def test_the_table_stays_small(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sla_table, "REWRITTEN_EVERY", 5)
    table = SlaTable(local, "p")
    start = NOW - 40 * 24 * HOUR_MS
    SlaTable(local, "q").record([evaluation(NOW, stream="q")], "job", NOW)
    for at in [start, start + EVERY_MS, *(NOW + n * EVERY_MS for n in range(5))]:
        table.record([evaluation(at)], "job", at)
    assert len(rows(local)) == 6, "those of 35 days, also another pipeline's"
    files = DeltaTable(local.table_uri(TABLE)).file_uris()
    assert len(files) <= 3


def test_a_table_that_was_deleted_begins_again(local: Lake) -> None:
    table = SlaTable(local, "p")
    table.record([evaluation(NOW)], "job", NOW)
    local.delete([str(e["path"]) for e in _all(local)])
    assert table.record([evaluation(NOW + 1)], "job", NOW + 1) == 1
    assert len(rows(local)) == 1


def _all(lake: Lake) -> list[dict[str, Any]]:
    import obstore

    return [entry for page in obstore.list(lake.objects, f"{TABLE}/") for entry in page]


def test_a_lake_that_cannot_be_written_is_said(local: Lake) -> None:
    local.put(TABLE, b"a file where the table's folder must be")
    with pytest.raises(LakehouseError):
        SlaTable(local, "p").record([evaluation(NOW)], "job", NOW)


def test_a_stream_that_never_committed_has_a_row_too(local: Lake) -> None:
    never = Evaluation("s", evaluate(Asked(ServiceLevels(), Standing(), None, Job.DOWN), NOW), Standing())
    assert never.health.cause is Cause.UNKNOWN
    assert SlaTable(local, "p").record([never, replace(never, stream="t")], "job", NOW) == 2
    assert {row["event_lag_ms"] for row in rows(local)} == {None}

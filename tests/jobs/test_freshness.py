"""Judging a pipeline: what waits for each stream, Kafka or the lake away, and a watch that never harms its caller."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deltalake import DeltaTable
from rich.console import Console

from contracts.model import ServiceLevels, Start
from jobs import freshness
from jobs.errors import JobRefused, KafkaProblem
from jobs.freshness import JOB, Freshness, FreshnessWatch, Looked, job_of
from jobs.freshness_function import report
from jobs.start import StartPlan
from jobs.watch import follow
from lakehouse.begins import keep_begins
from lakehouse.freshness import Cause, Colour, Job, Waiting
from lakehouse.lake import Lake
from lakehouse.parking import Parking
from lakehouse.sla_table import SlaTable
from tests.lakehouse.rows import CONTRACT, NOW, TOPIC, contract, no_gaps, row, section, tables, write

Partition = tuple[str, int]
P, Q = (TOPIC, 0), (TOPIC, 1)
PROMISE = ServiceLevels(latency_ms=60_000)


@dataclass
class Broker:
    """Kafka as far as the judges ask: ends, earliest offsets, and when each readable record came."""

    ends: dict[Partition, int]
    earliest: dict[Partition, int] = field(default_factory=dict)
    records: dict[Partition, dict[int, int]] = field(default_factory=dict)  # offset -> timestamp; others are markers
    away: bool = False
    asked: list[dict[Partition, int]] = field(default_factory=list)

    def topics(self) -> list[str]:
        if self.away:
            raise KafkaProblem("no Kafka broker answers")
        return sorted({topic for topic, _ in self.ends})

    def oldest_from(self, positions: Mapping[Partition, int], ends: Mapping[Partition, int]) -> dict[Partition, Any]:
        self.asked.append(dict(positions))
        found = {}
        for partition, at in positions.items():
            later = {o: t for o, t in self.records.get(partition, {}).items() if at <= o < ends[partition]}
            found[partition] = later[min(later)] if later else None
        return found


@pytest.fixture
def local(tmp_path: Path) -> Lake:
    return Lake.open(str(tmp_path / "lake"))


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    made = Broker({P: 10, Q: 0}, {P: 0, Q: 0})
    monkeypatch.setattr(freshness, "partitions_of", lambda kafka, topics: sorted(kafka.ends))
    monkeypatch.setattr(freshness, "end_offsets", lambda kafka, partitions: dict(kafka.ends))
    monkeypatch.setattr(freshness, "earliest_offsets", lambda kafka, asked: {p: kafka.earliest[p] for p in asked})
    monkeypatch.setattr(freshness, "topic_ids", lambda kafka, topics: dict.fromkeys(topics, "id"))
    monkeypatch.setattr(freshness, "oldest_from", lambda kafka, own, ends, seconds: kafka.oldest_from(own, ends))
    return made


def judges(lake: Lake, broker: Broker | None, *contracts: Any) -> Freshness:
    return Freshness(contracts or (contract(sla=PROMISE),), lake, "test", broker)  # type: ignore[arg-type]


def commit(lake: Lake, *offsets: int, of: Any = CONTRACT) -> None:
    refs = write(lake, section([row(offset) for offset in offsets], of=of))
    tables(lake, of).commit(refs, gaps=no_gaps, now_ms=NOW)


def waiting(judge: Freshness) -> dict[str, Waiting | None]:
    return {
        one.stream: None if one.health.measures.waiting is None else Waiting(one.health.measures.waiting)
        for one in judge.evaluate(Job.RUNS)
    }


def ago(seconds: float) -> int:
    return int((time.time() - seconds) * 1000)


def test_what_waits_is_above_the_progress_and_as_old_as_its_first_readable_record(local: Lake, broker: Broker) -> None:
    commit(local, 0, 5)
    broker.records[P] = {5: ago(500), 8: ago(90), 9: ago(5)}
    (one,) = judges(local, broker).evaluate(Job.RUNS)
    assert one.health.measures.waiting == 4
    assert 90_000 <= (one.health.measures.oldest_waiting_ms or 0) < 95_000
    assert (one.health.colour, one.health.cause) == (Colour.RED, Cause.VIOLATED)


def test_offsets_after_which_nothing_can_be_read_do_not_wait(local: Lake, broker: Broker) -> None:
    commit(local, 0, 5)
    assert waiting(judges(local, broker)) == {"orders": Waiting(0)}


def test_a_stream_that_never_committed_waits_for_what_kafka_still_holds(local: Lake, broker: Broker) -> None:
    broker.records[P] = {7: ago(1)}
    broker.earliest[P] = 4
    assert waiting(judges(local, broker)) == {"orders": Waiting(6)}


def test_a_stream_that_begins_later_waits_for_what_comes_after_its_begin(local: Lake, broker: Broker) -> None:
    later = contract(start=Start.LATEST)
    broker.records[P] = {n: ago(1) for n in range(10)}
    assert waiting(judges(local, broker, later)) == {"orders": Waiting(0)}, "it was never started"
    keep_begins(local, "test", "orders", {TOPIC: "id"}, {P: 8})
    broker.ends[Q], broker.records[Q] = 3, {0: ago(1)}
    assert waiting(judges(local, broker, later)) == {"orders": Waiting(2 + 3)}, "a new partition is read in whole"


def test_streams_of_one_topic_may_stand_at_different_offsets(local: Lake, broker: Broker) -> None:
    audit = contract(stream="audit")
    commit(local, 0, 8)
    commit(local, 0, 2, of=audit)
    broker.records[P] = {n: ago(100 - n) for n in range(10)}
    assert waiting(judges(local, broker, CONTRACT, audit)) == {"orders": Waiting(1), "audit": Waiting(7)}
    assert len(broker.asked) == 2


@pytest.mark.parametrize("away", [True, False])
def test_without_an_answer_of_kafka_what_waits_is_not_known(local: Lake, broker: Broker, away: bool) -> None:
    broker.away = away
    commit(local, 0)
    assert waiting(judges(local, broker if away else None)) == {"orders": None}


def test_a_parked_stream_is_red_with_its_reason(local: Lake, broker: Broker) -> None:
    commit(local, 0, 9)
    Parking(local, "test").park("orders", "a rule said stop")
    (one,) = judges(local, broker).evaluate(Job.RUNS)
    assert (one.health.colour, one.health.reason) == (Colour.RED, "it stands still: a rule said stop")


def test_a_stream_whose_tables_cannot_be_continued_blinds_for_no_other(local: Lake, broker: Broker) -> None:
    audit = contract(stream="audit")
    commit(local, 0, 9)
    commit(local, 0, 9, of=audit)
    DeltaTable(local.table_uri("audit_changes")).restore(0)
    orders, other = judges(local, broker, CONTRACT, audit).evaluate(Job.RUNS)
    assert orders.health.cause is Cause.FINE
    assert other.health.cause is Cause.PARKED and "RESTORE was run" in other.health.reason


def finished(watch: FreshnessWatch, job: Callable[[], Job] = lambda: Job.RUNS) -> Looked:
    until = time.monotonic() + 20
    while (looked := watch.look(job)) is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    return looked


def test_a_watch_records_what_it_finds_and_tells_it_once(local: Lake, broker: Broker) -> None:
    commit(local, 0, 9)
    watch = FreshnessWatch(judges(local, broker), JOB, every_seconds=3600)
    looked = finished(watch)
    assert looked.failure == "" and looked.healths["orders"].cause is Cause.FINE
    assert watch.look(lambda: Job.RUNS) is None, "the next look is not due"
    table = SlaTable(local, "test")
    table.refresh()
    assert len(table._of("orders")) == 1


def test_a_watch_never_raises_and_never_makes_its_caller_wait(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = judges(local, None)

    def slow(*_: object) -> None:
        time.sleep(0.5)
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(judge, "evaluate", slow)
    watch = FreshnessWatch(judge, JOB, every_seconds=0)
    begun = time.monotonic()
    assert watch.look(lambda: Job.RUNS) is None
    assert time.monotonic() - begun < 0.4
    assert finished(watch) == Looked({}, "RuntimeError: a fault of ours")


def test_a_watch_whose_record_fails_still_tells_what_it_found(local: Lake, broker: Broker) -> None:
    commit(local, 0, 9)
    local.put("_tidegate/sla", b"a file where the table's folder must be")
    looked = finished(FreshnessWatch(judges(local, broker), JOB, every_seconds=0))
    assert "orders" in looked.healths and "_tidegate/sla" in looked.failure


@pytest.mark.parametrize(
    ("state", "job"),
    [(None, Job.DOWN), ("UNKNOWN", Job.DOWN), ("FINISHED", Job.DOWN), ("CANCELED", Job.DOWN), ("RUNNING", Job.RUNS),
     ("CREATED", Job.RUNS), ("RESTARTING", Job.FAILS), ("FAILING", Job.FAILS)],
)  # fmt: skip
def test_flinks_states_say_how_a_job_is(state: str | None, job: Job) -> None:
    assert job_of(state) is job


class Gone(Exception):
    """Ends a watch that would go on."""


def test_the_supervisor_records_that_a_job_is_gone_while_records_wait(local: Lake, broker: Broker) -> None:
    commit(local, 0, 5)
    broker.records[P] = {9: ago(1)}

    def refused() -> str:
        raise JobRefused("the cluster is full")

    cluster = SimpleNamespace(state=lambda job: None, running=lambda name: None, why_failed=lambda job: None)
    launch: Any = SimpleNamespace(
        request=SimpleNamespace(pipeline="test", freshness_seconds=0.0), contracts=(CONTRACT,), lake=local,
        kafka=broker, cluster=cluster, plan=StartPlan({}, {}), submit=refused,
    )  # fmt: skip
    table, until = SlaTable(local, "test"), time.monotonic() + 30

    def sleep(_: float) -> None:
        time.sleep(0.02)
        table.refresh()
        if len(table._of("orders")):
            raise Gone
        assert time.monotonic() < until

    with pytest.raises(Gone):
        follow(launch, "job", Console(quiet=True), until_caught_up=False, supervise=True, sleep=sleep)
    row = table._of("orders").to_pylist()[0]
    assert (row["by"], row["colour"], row["cause"], row["waiting_records"]) == ("supervisor", "red", "job_down", 4)


class Gauges:
    """Metrics that keep what they are set to."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}

    def count(self, name: str, amount: int, **labels: str) -> None:
        raise AssertionError(name)

    def set(self, name: str, value: int, **labels: str) -> None:
        self.values[name] = value


def test_gauges_say_what_was_measured_and_nothing_of_what_is_not_known(local: Lake, broker: Broker) -> None:
    gauges = Gauges()
    (never,) = judges(local, None, replace(CONTRACT, sla=PROMISE)).evaluate(Job.RUNS)
    report(gauges, "orders", never.health)
    assert gauges.values == {"sla_colour": 0, "sla_violated": 0}
    commit(local, 0, 5)
    broker.records[P] = {9: ago(120)}
    (late,) = judges(local, broker).evaluate(Job.RUNS)
    report(gauges, "orders", late.health)
    assert (gauges.values["sla_colour"], gauges.values["sla_violated"], gauges.values["sla_waiting_records"]) == (
        2,
        1,
        4,
    )
    assert set(gauges.values) == {
        "sla_colour", "sla_violated", "sla_event_lag_ms", "sla_commit_age_ms", "sla_watermark_lag_ms",
        "sla_waiting_records", "sla_oldest_waiting_ms",
    }  # fmt: skip

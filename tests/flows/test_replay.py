"""Records that a rule refused are repaired, and a topic is read again, while the job runs: the tables are then what the
source holds, and doing it again changes nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from confluent_kafka import Producer
from rich.console import Console

from jobs.diff import diff
from jobs.errors import RunRefused
from jobs.kafka.client import KafkaClient
from jobs.kafka.topics import ensure_topics
from jobs.quarantine import Repaired, repair
from jobs.replay import Replayed, replay
from jobs.spans import Asked
from jobs.versions import Filled, fill, swap
from lakehouse.quarantined import Chosen
from tests.flows.command import tidegate
from tests.flows.pipeline import Pipeline
from tests.flows.streams import ID, NOTE, running, setting, until, write_contract

pytestmark = pytest.mark.integration

PARTITIONS, KEYS = 2, 40
KEYED = {**ID, "primaryKey": True, "primaryKeyPosition": 1}
TABLES = ["quarantine", "changes", "history", "current"]


def contract_of(folder: Path, topic: str, longest: int, action: str = "quarantine") -> Path:
    """Give a contract that refuses, or drops, notes above a length."""
    note = {**NOTE, "logicalTypeOptions": {"maxLength": longest}, "customProperties": [setting("action", action)]}
    return write_contract(folder, "docs", topic, (KEYED, note), envelope="debezium", tables=TABLES)


class Documents:
    """The source's table, and the changes that a connector sends of it; one note in five is long."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.topic = topic
        self.rows: dict[int, str] = {}
        self.sent = self.versions = 0
        self._random = Random(11)
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 10}, logger=None)

    def write(self, count: int) -> None:
        for _ in range(count):
            key = self._random.randrange(KEYS)
            deletes = key in self.rows and self._random.random() < 0.15
            value = self._deleted(key) if deletes else self._put(key)
            self._producer.produce(
                self.topic, key=json.dumps({"id": key}), value=json.dumps(value), partition=key % PARTITIONS
            )
            self.sent += 1
        self._producer.flush(30)

    def _put(self, key: int) -> dict[str, Any]:
        op = "u" if key in self.rows else "c"
        self.rows[key] = f"note {self.sent}" + (" that is long" if self._random.random() < 0.2 else "")
        self.versions += 1
        return {**self._source(), "op": op, "before": None, "after": {"id": key, "note": self.rows[key]}}

    def _deleted(self, key: int) -> dict[str, Any]:
        return {**self._source(), "op": "d", "before": {"id": key, "note": self.rows.pop(key)}, "after": None}

    def _source(self) -> dict[str, Any]:
        lsn = 1000 + self.sent
        return {"source": {"connector": "postgresql", "lsn": lsn, "sequence": json.dumps([str(lsn), str(lsn)]),
                           "ts_ms": 1_700_000_000_000 + self.sent}}  # fmt: skip


def versions(pipeline: Pipeline) -> dict[str, int]:
    return {
        name: len(list((Path(pipeline.lake) / name / "_delta_log").glob("*.json")))
        for name in ("docs_quarantine", "docs_changes", "docs_history", "docs")
    }


def equal_to(source: Documents, pipeline: Pipeline) -> bool:
    """Say whether changes, current and history are what the source says, and nothing waits."""
    with pipeline.query() as duck:
        one = "SELECT count(*), count(DISTINCT (_partition, _offset)) FROM docs_changes"
        if duck.execute(one).fetchone() != (source.sent, source.sent):
            return False
        assert duck.execute("SELECT count(*) FROM docs WHERE _stale").fetchone() == (0,)
        assert duck.execute("SELECT id, note FROM docs ORDER BY id").fetchall() == sorted(source.rows.items())
        assert duck.execute("SELECT count(*) FROM docs_history").fetchone() == (source.versions,)
        still = duck.execute("SELECT id, note FROM docs_history WHERE _is_current ORDER BY id").fetchall()
        return bool(still == sorted(source.rows.items()))


@dataclass(frozen=True)
class User:
    """What a user of one pipeline does, by the verbs behind the commands."""

    pipeline: Pipeline
    kafka: KafkaClient
    contracts: Path
    console: Console

    @property
    def where(self) -> tuple[str, Path, str, str]:
        return "docs", self.contracts, str(self.pipeline.lake), self.pipeline.name

    def repair(self) -> Repaired:
        return repair(*self.where, Chosen(), kafka=self.kafka, keys=None, console=self.console)

    def replay(self) -> Replayed:
        return replay(*self.where, Asked(), kafka=self.kafka, keys=None, console=self.console)

    def fill(self) -> Filled:
        return fill(*self.where, "v2", Asked(), kafka=self.kafka, keys=None, console=self.console)

    def swap(self) -> list[dict[str, Any]]:
        return swap(*self.where, "v2", cluster=None, accept_loss=False, console=self.console)

    def equal(self) -> bool:
        return diff(*self.where[:3], "v2").comparison.equal

    def wait_for(self, records: int) -> None:
        def committed() -> int:
            return sum(last + 1 for last in self.pipeline.standing(self.contracts, "docs").progress.values())

        until("all is committed", lambda: committed() == records)


def test_what_a_rule_refused_is_repaired_while_the_job_runs(
    pipeline: Pipeline, kafka: KafkaClient, tmp_path: Path, quiet: Console
) -> None:
    topic = "replay.refused"
    strict, fixed = contract_of(tmp_path / "strict", topic, 10), contract_of(tmp_path / "fixed", topic, 40)
    ensure_topics(kafka, {topic: PARTITIONS})
    source, user = Documents(kafka.bootstrap, topic), User(pipeline, kafka, fixed, quiet)
    source.write(300)
    with running(pipeline, strict):
        user.wait_for(300)
        where = ("--stream", "docs", "--lake", str(pipeline.lake), "--contracts", str(fixed))
        shown = json.loads(tidegate("quarantine", "show", *where, "--first", "1", "--json").out)
        assert " that is long" in json.loads(shown[0]["payload"])["note"]
        source.write(200)
        first = user.repair()
        assert first.resolved == first.added > 30 and not first.failing
        user.wait_for(500)
        user.repair()
        assert equal_to(source, pipeline)
        before = versions(pipeline)
        assert (user.repair(), versions(pipeline)) == (Repaired(0), before)


def test_a_topic_is_read_again_in_place_and_into_a_version_that_takes_over(
    pipeline: Pipeline, kafka: KafkaClient, tmp_path: Path, quiet: Console
) -> None:
    topic = "replay.dropped"
    strict, fixed = contract_of(tmp_path / "strict", topic, 10, "drop"), contract_of(tmp_path / "fixed", topic, 40)
    ensure_topics(kafka, {topic: PARTITIONS})
    source, user = Documents(kafka.bootstrap, topic), User(pipeline, kafka, fixed, quiet)
    source.write(300)
    assert pipeline.catch_up(strict)["parked"] == []
    filled = user.fill()
    assert (filled.read, filled.rows) == (300, 300)
    assert not user.equal()
    with running(pipeline, fixed):
        with pytest.raises(RunRefused, match="cancel it, swap"):
            user.swap()
        source.write(100)
        assert user.replay().added > 30
        user.wait_for(400)
        assert equal_to(source, pipeline)
        before = versions(pipeline)
        again = user.replay()
        assert (again.added, again.held, versions(pipeline)) == (0, 400, before)
        source.write(50)
        user.wait_for(450)
    assert user.fill().read == 150
    assert user.equal()
    assert not any(one["already"] for one in user.swap())
    assert equal_to(source, pipeline)

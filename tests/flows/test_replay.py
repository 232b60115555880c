"""Records that a rule refused are repaired, and a topic is read again, while the job runs: the tables are then what the
source holds, and doing it again changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from confluent_kafka import Producer

from jobs.kafka.client import KafkaClient
from jobs.kafka.topics import ensure_topics
from tests.flows.command import Said, tidegate
from tests.flows.pipeline import Pipeline
from tests.flows.streams import ID, NOTE, running, setting, until, write_contract

pytestmark = pytest.mark.integration

TOPIC = "replay.docs"
PARTITIONS, KEYS = 2, 40
KEYED = {**ID, "primaryKey": True, "primaryKeyPosition": 1}
TABLES = ["quarantine", "changes", "history", "current"]


def contract_of(folder: Path, longest: int, action: str = "quarantine") -> Path:
    """Give a contract that refuses, or drops, notes above a length."""
    note = {**NOTE, "logicalTypeOptions": {"maxLength": longest}, "customProperties": [setting("action", action)]}
    return write_contract(folder, "docs", TOPIC, (KEYED, note), envelope="debezium", tables=TABLES)


class Documents:
    """The source's table, and the changes that a connector sends of it; one note in five is long."""

    def __init__(self, bootstrap: str) -> None:
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
                TOPIC, key=json.dumps({"id": key}), value=json.dumps(value), partition=key % PARTITIONS
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


def test_what_a_rule_refused_is_repaired_while_the_job_runs(
    pipeline: Pipeline, kafka: KafkaClient, tmp_path: Path
) -> None:
    strict, fixed = contract_of(tmp_path / "strict", 10), contract_of(tmp_path / "fixed", 40)
    ensure_topics(kafka, {TOPIC: PARTITIONS})
    source = Documents(kafka.bootstrap)

    def command(*words: str, contracts: Path = fixed) -> Said:
        where = ("--stream", "docs", "--lake", str(pipeline.lake), "--contracts", str(contracts))
        return tidegate(*words, *where)

    def repair() -> dict[str, Any]:
        said = command("quarantine", "replay", "--name", pipeline.name, "--kafka", kafka.bootstrap, "--json")
        return {"code": said.code, **json.loads(said.out)}

    source.write(300)
    with running(pipeline, strict):
        until("all is read", lambda: sum(pipeline.standing(strict, "docs").progress.values()) + PARTITIONS == 300)
        assert "note_length" in command("quarantine", "list").words
        assert "still break" in command("quarantine", "replay", "--name", pipeline.name, "--kafka", kafka.bootstrap,
                                        contracts=strict).words  # fmt: skip
        shown = json.loads(command("quarantine", "show", "--first", "1", "--json").out)
        assert " that is long" in json.loads(shown[0]["payload"])["note"]
        source.write(200)
        first = repair()
        assert first["resolved"] == first["added"] > 30 and not first["failing"]
        until("all is read", lambda: sum(pipeline.standing(strict, "docs").progress.values()) + PARTITIONS == 500)
        repair()
        assert equal_to(source, pipeline)
        before = versions(pipeline)
        assert repair() == {"code": 0, "asked": 0, "resolved": 0, "added": 0, "failing": [], "too_old": [], "gone": []}
        assert {name: n for name, n in versions(pipeline).items() if n != before[name]} == {}
    assert pipeline.catch_up(fixed)["parked"] == []
    source.write(50)
    assert pipeline.catch_up(fixed)["parked"] == []
    assert equal_to(source, pipeline)

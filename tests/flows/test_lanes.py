"""A stream whose keys several lanes share: a worker dies, one lane runs ahead, the number of lanes changes; current,
history and changes are what the source holds."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from confluent_kafka import Producer

from contracts.load import load_contracts
from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import end_offsets, partitions_of
from jobs.kafka.topics import ensure_topics
from jobs.lanes import Levelling, tables_of_lanes
from lakehouse.commit import StreamTables
from lakehouse.lake import Lake
from lakehouse.lanes import Lane
from lakehouse.relaning import Levels
from tests.flows.pipeline import Pipeline
from tests.flows.streams import ID, NOTE, running, until, write_contract
from udfs.keys import KeyRing

pytestmark = pytest.mark.integration

TOPIC = "lanes.docs"
PARTITIONS, KEYS, CHANGES = 3, 600, 6_000
KEYED = {**ID, "primaryKey": True, "primaryKeyPosition": 1}
TABLES = ["quarantine", "changes", "history", "current"]


def contract_of(folder: Path, lanes: int) -> Path:
    settings = {"envelope": "debezium", "tables": TABLES, "state": {"lanes": lanes}}
    return write_contract(folder / f"{lanes}-lanes", "docs", TOPIC, (KEYED, NOTE), **settings)


class Documents:
    """The source's table, and the changes that a connector sends of it."""

    def __init__(self, bootstrap: str) -> None:
        self.rows: dict[int, str] = {}
        self.sent = self.versions = 0
        self._random = Random(7)
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 10}, logger=None)

    def write(self, count: int) -> None:
        for _ in range(count):
            key = self._random.randrange(KEYS)
            value = self._deleted(key) if key in self.rows and self._random.random() < 0.2 else self._put(key)
            self._producer.produce(
                TOPIC, key=json.dumps({"id": key}), value=json.dumps(value), partition=key % PARTITIONS
            )
            self._producer.poll(0)
        assert self._producer.flush(30) == 0

    def _put(self, key: int) -> dict[str, object]:
        op, self.rows[key] = "u" if key in self.rows else "c", f"note {self.sent}"
        self.versions += 1
        return self._event(op, None, {"id": key, "note": self.rows[key]})

    def _deleted(self, key: int) -> dict[str, object]:
        del self.rows[key]
        return self._event("d", {"id": key, "note": None}, None)

    def _event(self, op: str, before: object, after: object) -> dict[str, object]:
        self.sent += 1
        lsn = 1_000 + self.sent
        source = {"connector": "postgresql", "lsn": lsn, "sequence": json.dumps([str(lsn)] * 2), "ts_ms": 10**12 + lsn}
        return {"before": before, "after": after, "op": op, "source": source}


def kill_a_worker(pipeline: Pipeline) -> None:
    """Let one of the Python workers die, which restarts the job."""
    found = until("Python workers run", pipeline.stack.workers)
    with suppress(psutil.NoSuchProcess):
        Random(1).choice(sorted(found, key=lambda worker: worker.pid)).kill()


def run_ahead(pipeline: Pipeline, contracts: Path, kafka: KafkaClient, ahead: Lane) -> None:
    """Let one lane commit all that Kafka holds, as if the others had been killed before they did."""
    (contract,) = load_contracts(contracts, {})
    lake = Lake.open(str(pipeline.lake))
    ends = {p: end - 1 for p, end in end_offsets(kafka, partitions_of(kafka, [TOPIC])).items()}
    levels = Levels(ahead.of, dict(pipeline.standing(contracts, "docs").progress), ends)

    def only(*of: Any) -> dict[Lane, StreamTables]:
        return {ahead: tables_of_lanes(*of)[ahead]}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.lanes.tables_of_lanes", only)
        Levelling(contract, lake, pipeline.name, kafka, KeyRing({})).run(levels)


def test_lanes_keep_the_truth_when_a_worker_dies_and_when_their_number_changes(
    pipeline: Pipeline, kafka: KafkaClient, tmp_path: Path
) -> None:
    ensure_topics(kafka, {TOPIC: PARTITIONS})
    source = Documents(pipeline.stack.kafka_address)
    three, two = contract_of(tmp_path, 3), contract_of(tmp_path, 2)

    def committed() -> int:
        return sum(last + 1 for last in pipeline.standing(three, "docs").progress.values())

    source.write(CHANGES)
    with running(pipeline, three):
        until("the first commits", lambda: committed() > 0)
        source.write(CHANGES)
        kill_a_worker(pipeline)
        until("it goes on", lambda: committed() > CHANGES + CHANGES // 2)
    source.write(CHANGES // 4)
    run_ahead(pipeline, three, kafka, Lane(1, 3))
    source.write(CHANGES // 4)
    assert pipeline.catch_up(two)["parked"] == []
    with pipeline.query() as duck:
        assert duck.execute("SELECT count(*), count(DISTINCT (_partition, _offset)) FROM docs_changes").fetchone() == (
            source.sent,
            source.sent,
        )
        assert duck.execute("SELECT id, note FROM docs ORDER BY id").fetchall() == sorted(source.rows.items())
        still = duck.execute("SELECT id, note FROM docs_history WHERE _is_current ORDER BY id").fetchall()
        assert still == sorted(source.rows.items())
        assert duck.execute("SELECT count(*) FROM docs_history").fetchone() == (source.versions,)
    state = pipeline.standing(two, "docs").anchor
    assert state is not None and (state.lanes, sorted(state.parts)) == (2, [0, 1])

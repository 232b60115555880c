"""Pipelines that are stopped, started twice, changed or lost under load: each offset is in the tables exactly once."""

from __future__ import annotations

import base64
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from confluent_kafka import Producer
from rich.console import Console

from jobs.cluster import Cluster
from jobs.errors import ClusterUnreachable
from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import end_offsets, partitions_of
from jobs.kafka.topics import ensure_topics
from jobs.maintain import Asked, maintain
from jobs.stack import Stack
from lakehouse import maintenance
from lakehouse.maintenance import Job, Orders
from tests.flows.command import COMMAND, tidegate
from tests.flows.pipeline import Pipeline
from tests.flows.streams import (
    ID,
    NOTE,
    events,
    ids,
    metric,
    parked,
    produce,
    running,
    setting,
    until,
    write_contract,
)

pytestmark = pytest.mark.integration

PARTITIONS = 3
AT_ONCE, PAUSE_SECONDS = 300, 0.05  # some 6,000 events a second


@contextmanager
def load(bootstrap: str, topic: str) -> Iterator[None]:
    """Write events to all partitions for as long as the block runs."""
    over = threading.Event()

    def write() -> None:
        producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 10}, logger=None)
        for number in count():
            if number % AT_ONCE == 0 and over.wait(PAUSE_SECONDS):
                break
            producer.produce(topic, value=b'{"id": %d, "note": "load"}' % number, partition=number % PARTITIONS)
            producer.poll(0)
        assert producer.flush(30) == 0

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            yield
        finally:
            over.set()
        writing.result()


class Loaded:
    """A stream of a test, its topic under load, and how much of it the tables hold."""

    def __init__(self, pipeline: Pipeline, kafka: KafkaClient, folder: Path) -> None:
        self.pipeline, self.kafka = pipeline, kafka
        self.topic = f"restarts.{pipeline.name}"
        self.contracts = write_contract(folder / "contracts", "loaded", self.topic)
        ensure_topics(kafka, {self.topic: PARTITIONS})

    def written(self) -> int:
        """Give how many records the topic holds."""
        return sum(self._ends().values())

    def committed(self) -> int:
        """Give how many records the tables hold, by their progress."""
        return sum(last + 1 for last in self.pipeline.standing(self.contracts, "loaded").progress.values())

    def verify(self) -> None:
        """Wait until all that was written is committed; then each offset must be there once."""
        until("all is committed", lambda: self.committed() == self.written())
        sql = """
            SELECT _partition, count(*), count(DISTINCT _offset), min(_offset), max(_offset) FROM (
                SELECT _partition, _offset FROM loaded_changes
                UNION ALL SELECT _partition, _offset FROM loaded_quarantine
            ) GROUP BY ALL ORDER BY ALL
        """
        with self.pipeline.query() as duck:
            found = duck.execute(sql).fetchall()
        assert found == [(number, end, end, 0, end - 1) for (_, number), end in sorted(self._ends().items())]

    def _ends(self) -> dict[tuple[str, int], int]:
        return end_offsets(self.kafka, partitions_of(self.kafka, [self.topic]))


def test_a_job_stopped_in_the_middle_of_a_load_and_maintained_goes_on_where_its_tables_end(
    pipeline: Pipeline, kafka: KafkaClient, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Loaded(pipeline, kafka, tmp_path)
    asked = Asked(loaded.contracts, str(pipeline.lake), pipeline.name, (), None, Orders())
    with load(pipeline.stack.kafka_address, loaded.topic):
        with running(pipeline, loaded.contracts):
            until("the first commits", lambda: loaded.committed() > 10_000)
            beside = maintain(asked, quiet)
        stopped_at = loaded.committed()
        until("more is written", lambda: loaded.written() > stopped_at + 10_000)
        assert loaded.committed() == stopped_at
        monkeypatch.setattr(maintenance, "QUIET", timedelta(0))
        alone = maintain(asked, quiet)
        with running(pipeline, loaded.contracts):
            until("it goes on", lambda: loaded.committed() > stopped_at + 10_000)
    with running(pipeline, loaded.contracts):
        loaded.verify()
    assert (beside.job, beside.told, alone.job, alone.told) == (Job.RUNS, [], Job.ENDED, [])
    assert not any(table.compacted for table in beside.tables)


def test_two_copies_of_a_pipeline_do_no_harm(pipeline: Pipeline, kafka: KafkaClient, tmp_path: Path) -> None:
    loaded = Loaded(pipeline, kafka, tmp_path)
    with running(pipeline, loaded.contracts) as (launch, first):
        with load(pipeline.stack.kafka_address, loaded.topic):
            until("the first copy commits", lambda: loaded.committed() > 0)
            second = launch.submit()
            copies = (first, second)
            until("the second copy reads", lambda: metric(launch.cluster, second, "records_in") - {"0"})
            begun = loaded.committed()
            until("both have gone on", lambda: loaded.committed() > begun + 30_000)
        loaded.verify()
        failures = [launch.cluster.why_failed(copy) for copy in copies]
        produce(kafka, loaded.topic, events(1, 100))
        loaded.verify()
        assert failures == [None, None]
        assert [launch.cluster.state(copy) for copy in copies] == ["RUNNING", "RUNNING"]


def test_a_column_that_the_contract_gains_is_null_in_old_rows_and_filled_in_new_ones(
    pipeline: Pipeline, kafka: KafkaClient, tmp_path: Path
) -> None:
    ensure_topics(kafka, {"restarts.grown": 1})
    colour = {**NOTE, "name": "colour"}
    produce(kafka, "restarts.grown", [{"id": 1, "note": "a"}, {"id": 2, "note": "b", "colour": "not asked for yet"}])
    pipeline.catch_up(write_contract(tmp_path / "contracts", "grown", "restarts.grown"))
    produce(kafka, "restarts.grown", [{"id": 3, "note": "c", "colour": "red"}, {"id": 4, "note": "d"}])
    wider = write_contract(tmp_path / "contracts", "grown", "restarts.grown", (ID, NOTE, colour))
    assert pipeline.catch_up(wider)["parked"] == []
    with pipeline.query() as duck:
        rows = duck.execute("SELECT id, note, colour, _offset FROM grown_changes ORDER BY id").fetchall()
    assert rows == [(1, "a", None, 0), (2, "b", None, 1), (3, "c", "red", 2), (4, "d", None, 3)]


def test_a_changed_mask_key_refuses_the_start_until_the_old_one_is_back(
    pipeline: Pipeline, kafka: KafkaClient, tmp_path: Path
) -> None:
    ensure_topics(kafka, {"restarts.sealed": 1})
    masked = {**NOTE, "classification": "pii", "customProperties": [setting("mask", {"kind": "hash", "keyId": "own"})]}
    contracts = write_contract(tmp_path / "contracts", "sealed", "restarts.sealed", (ID, masked))
    old, new = (_key_file(tmp_path / name, name.encode()) for name in ("old", "new"))
    produce(kafka, "restarts.sealed", [{"id": 1, "note": "same"}])
    pipeline.catch_up(contracts, keys=old)
    produce(kafka, "restarts.sealed", [{"id": 2, "note": "same"}])

    where = ("--kafka", pipeline.stack.kafka_address, "--cluster", pipeline.stack.flink_address)
    own = ("--lake", str(pipeline.lake), "--name", pipeline.name)
    flags = ("--keys", str(new), "--commit-seconds", "1", "--until-caught-up")
    said = tidegate("run", "--contracts", str(contracts), *where, *own, *flags)
    assert said.code == 1
    assert "the run was not started: - sealed: table sealed_changes: field note was masked with key" in said.words
    assert "Put the old key back, or move the stream's tables away and build them again." in said.words
    assert (ids(pipeline, "sealed"), parked(pipeline)) == ([1], {})

    assert pipeline.catch_up(contracts, keys=old)["parked"] == []
    with pipeline.query() as duck:
        tokens = duck.execute("SELECT id, note FROM sealed_changes ORDER BY id").fetchall()
    assert [number for number, _ in tokens] == [1, 2]
    assert len({token for _, token in tokens}) == 1


def _key_file(path: Path, seed: bytes) -> Path:
    path.write_text(f"own = {base64.b64encode(seed.ljust(32, b'.')).decode()}\n", encoding="utf-8")
    return path


def test_a_supervised_job_is_submitted_again_after_the_jobmanager_died(tmp_path: Path) -> None:
    with Stack(tmp_path / "own", ("kafka", "flink")) as own:
        pipeline = Pipeline(own, tmp_path / "lake", "supervised")
        loaded = Loaded(pipeline, KafkaClient.from_file(None, own.kafka_address), tmp_path)
        where = ("--kafka", own.kafka_address, "--cluster", own.flink_address, "--lake", str(pipeline.lake))
        flags = ("--name", "supervised", "--commit-seconds", "1", "--supervise")
        with (tmp_path / "words").open("w") as words:
            command = [COMMAND, "run", "--contracts", str(loaded.contracts), *where, *flags]
            supervisor = subprocess.Popen(command, stdout=words, stderr=words)
        try:
            with load(own.kafka_address, loaded.topic):
                until("the first commits", lambda: loaded.committed() > 0)
                first = _job(own)
                own.kill("jobmanager")
                own.restart("jobmanager")
                second = until("the job is submitted again", lambda: _job(own))
                at = loaded.committed()
                until("it goes on", lambda: _job(own) and loaded.committed() > at + 10_000)
            loaded.verify()
            assert second != first
            assert _job(own) == second  # one job, and it did not need a third start
            assert supervisor.poll() is None
        finally:
            supervisor.terminate()
            supervisor.wait(30)
        assert "the job does not go on by itself" in (tmp_path / "words").read_text()


def _job(stack: Stack) -> str | None:
    """Give the id of the job that runs; None also while the cluster is away.

    A TaskManager that ended, as Flink does when tasks fail to close (docs/operations.md), is started again.
    """
    if any(found.process == "taskmanager" and not found.running for found in stack.status()):
        stack.restart("taskmanager", wait=False)
    with suppress(ClusterUnreachable):
        return Cluster(stack.flink_address).running("tidegate supervised")
    return None

"""Topics that change under a pipeline (made again, widened, cut short): no record twice, and no loss in silence."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition

from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import topic_ids
from jobs.kafka.topics import delete_topics, ensure_topics
from tests.flows.command import Said, tidegate
from tests.flows.pipeline import Pipeline
from tests.flows.streams import ID, NOTE, events, ids, offsets, parked, produce, running, until, write_contract

pytestmark = pytest.mark.integration

KEYED = {**ID, "primaryKey": True, "primaryKeyPosition": 1}
TABLES = ["quarantine", "changes", "history", "current"]


def start(pipeline: Pipeline, contracts: Path, *flags: str) -> Said:
    """Start the pipeline as a user would; for starts that are refused."""
    where = ("--kafka", pipeline.stack.kafka_address, "--cluster", pipeline.stack.flink_address)
    own = ("--contracts", str(contracts), "--lake", str(pipeline.lake), "--name", pipeline.name)
    return tidegate("run", *where, *own, *flags)


def recreate(kafka: KafkaClient, topic: str) -> tuple[str, str]:
    """Delete a topic of one partition and make it again; gives the old id and the new one."""
    old = topic_ids(kafka, [topic])[topic]
    delete_topics(kafka, [topic])
    until(f"{topic} is gone", lambda: topic not in kafka.topics())
    ensure_topics(kafka, {topic: 1})
    return old, topic_ids(kafka, [topic])[topic]


def test_a_topic_made_again_while_the_job_is_stopped_is_refused_until_a_new_epoch_is_asked_for(
    pipeline: Pipeline, kafka: KafkaClient, tmp_path: Path
) -> None:
    contracts = write_contract(tmp_path / "contracts", "remade", "topics.remade")
    ensure_topics(kafka, {"topics.remade": 1})
    produce(kafka, "topics.remade", events(1, 5))
    pipeline.catch_up(contracts)
    old, new = recreate(kafka, "topics.remade")
    produce(kafka, "topics.remade", events(6, 8))

    said = start(pipeline, contracts)
    assert said.code == 1
    assert f"topic topics.remade has id {new}, the tables were filled from id {old}" in said.words
    assert "Go on with the new one by --new-epoch topics.remade" in said.words
    assert ids(pipeline, "remade") == [1, 2, 3, 4, 5]

    pipeline.catch_up(contracts, new_epochs=("topics.remade",))
    # What was decided once holds for every later start.
    produce(kafka, "topics.remade", events(9, 9))
    assert pipeline.catch_up(contracts)["parked"] == []
    assert ids(pipeline, "remade") == list(range(1, 10))
    assert offsets(pipeline, "remade") == once({(0, 0): 5, (1, 0): 4})


def test_a_topic_made_again_while_the_job_runs_parks_its_stream_and_another_goes_on(
    pipeline: Pipeline, kafka: KafkaClient, tmp_path: Path
) -> None:
    contracts = tmp_path / "contracts"
    for stream in ("replaced", "steady"):
        write_contract(contracts, stream, f"topics.{stream}")
        ensure_topics(kafka, {f"topics.{stream}": 1})
        produce(kafka, f"topics.{stream}", events(1, 5))
    with running(pipeline, contracts, identity_seconds=1.0):
        until("both have begun", lambda: all(len(ids(pipeline, s)) == 5 for s in ("replaced", "steady")))
        old, new = recreate(kafka, "topics.replaced")
        produce(kafka, "topics.replaced", events(6, 8))
        reason = until("the stream is parked", lambda: parked(pipeline).get("replaced"))
        assert f"topic topics.replaced has id {new}, the tables were filled from id {old}" in reason
        assert "--new-epoch topics.replaced" in reason
        produce(kafka, "topics.steady", events(6, 8))
        until("the other stream goes on", lambda: ids(pipeline, "steady") == list(range(1, 9)))
        assert ids(pipeline, "replaced") == [1, 2, 3, 4, 5]

    assert pipeline.catch_up(contracts, new_epochs=("topics.replaced",))["parked"] == []
    assert offsets(pipeline, "replaced") == once({(0, 0): 5, (1, 0): 3})
    assert offsets(pipeline, "steady") == once({(0, 0): 8})
    assert ids(pipeline, "replaced") == ids(pipeline, "steady") == list(range(1, 9))


def test_a_source_that_was_restored_parks_its_stream_until_a_new_epoch_is_asked_for_or_it_is_resumed(
    pipeline: Pipeline, kafka: KafkaClient, tmp_path: Path
) -> None:
    topic, settings = "topics.restored", {"envelope": "debezium", "tables": TABLES}
    contracts = write_contract(tmp_path / "contracts", "restored", topic, (KEYED, NOTE), **settings)
    ensure_topics(kafka, {topic: 1})
    with running(pipeline, contracts):
        produce(kafka, topic, [event("r", 1, 800, "old"), event("u", 1, 900, "older"), event("c", 2, 910, "lost")])
        until("the old source is there", lambda: notes(pipeline) == [(1, "older"), (2, "lost")])
        produce(kafka, topic, [event("r", 1, 50, "restored"), event("u", 1, 60, "changed")])
        reason = until("the stream is parked", lambda: parked(pipeline).get("restored"))
        assert f"Start with --new-epoch {topic} to put it above that; or resume the stream" in reason
        produce(kafka, topic, [event("u", 1, 70, "changed again")])
        said = start(pipeline, contracts, "--new-epoch", topic)
        assert said.code == 1 and "runs: cancel it before a new epoch begins" in said.words
    assert parked(pipeline)["restored"] == reason and notes(pipeline) == [(1, "older"), (2, "lost")]

    assert pipeline.catch_up(contracts, new_epochs=(topic,))["parked"] == []
    assert notes(pipeline) == [(1, "changed again"), (2, "lost")]
    produce(kafka, topic, [event("u", 1, 80, "changed once more")])
    assert pipeline.catch_up(contracts, new_epochs=(topic,))["parked"] == []  # as a supervisor does
    assert pipeline.catch_up(contracts)["parked"] == []
    assert offsets(pipeline, "restored") == Counter({(int(n > 2), 0, n): 1 for n in range(7)})

    produce(kafka, topic, [event("r", 1, 30, "restored once more"), event("u", 1, 90, "the newest")])
    assert pipeline.catch_up(contracts)["parked"] == ["restored"]
    assert notes(pipeline) == [(1, "changed once more"), (2, "lost")]
    resumed = tidegate("resume", "restored", "--lake", str(pipeline.lake), "--name", pipeline.name)
    assert resumed.code == 0, resumed.words
    assert pipeline.catch_up(contracts)["parked"] == []
    assert notes(pipeline) == [(1, "the newest"), (2, "lost")]
    assert offsets(pipeline, "restored") == Counter({(int(n > 2), 0, n): 1 for n in range(9)})


def event(op: str, key: int, lsn: int, note: str) -> dict[str, Any]:
    """Give a change event of Debezium's; `r` is a row of a snapshot."""
    sequence = f'[null,"{lsn}"]' if op == "r" else f'["{lsn - 1}","{lsn}"]'
    source = {"connector": "postgresql", "lsn": lsn, "sequence": sequence, "ts_ms": 10**12 + lsn}
    source["snapshot"] = "true" if op == "r" else "false"
    return {"before": None, "after": {"id": key, "note": note}, "op": op, "source": source}


def notes(pipeline: Pipeline) -> list[tuple[int, str]]:
    """Give the rows of current; empty before the first commit."""
    with pipeline.query() as duck:
        there = duck.execute("SELECT 1 FROM duckdb_views() WHERE view_name = 'restored'").fetchall()
        return duck.execute("SELECT id, note FROM restored ORDER BY id").fetchall() if there else []


def test_partitions_added_while_the_job_runs_are_read_from_their_beginning(
    pipeline: Pipeline, kafka: KafkaClient, tmp_path: Path
) -> None:
    contracts = write_contract(tmp_path / "contracts", "widened", "topics.widened", start="latest")
    ensure_topics(kafka, {"topics.widened": 3})
    produce(kafka, "topics.widened", events(1, 3))  # before the beginning that the contract asks for
    with running(pipeline, contracts, discovery_seconds=2.0):
        for partition in range(3):
            produce(kafka, "topics.widened", events(10 * partition + 10, 10 * partition + 14), partition)
        until("the first partitions are there", lambda: len(ids(pipeline, "widened")) == 15)
        ensure_topics(kafka, {"topics.widened": 6})
        for partition in range(3, 6):  # at once: nobody has seen these partitions yet
            produce(kafka, "topics.widened", events(10 * partition + 10, 10 * partition + 14), partition)
        until("the new partitions are there", lambda: len(ids(pipeline, "widened")) == 30)
        for partition in range(6):
            produce(kafka, "topics.widened", events(10 * partition + 15, 10 * partition + 16), partition)
        until("all go on", lambda: len(ids(pipeline, "widened")) == 42)
    assert ids(pipeline, "widened") == [10 * p + n for p in range(6) for n in range(10, 17)]
    before = once({(0, 0): 3})
    assert offsets(pipeline, "widened") == once({(0, 0): 10, **{(0, p): 7 for p in range(1, 6)}}) - before


def test_records_deleted_before_they_were_read_refuse_the_start_until_the_loss_is_accepted(
    pipeline: Pipeline, kafka: KafkaClient, tmp_path: Path
) -> None:
    contracts = write_contract(tmp_path / "contracts", "shortened", "topics.shortened")
    ensure_topics(kafka, {"topics.shortened": 2})
    for partition in range(2):
        produce(kafka, "topics.shortened", events(10 * partition, 10 * partition + 4), partition)
    pipeline.catch_up(contracts)
    for partition in range(2):
        produce(kafka, "topics.shortened", events(10 * partition + 5, 10 * partition + 9), partition)
    with kafka.admin() as admin:
        admin.delete_records({TopicPartition("topics.shortened", 1): 8})

    said = start(pipeline, contracts)
    assert said.code == 1
    assert "topic topics.shortened partition 1 begins at offset 8" in said.words
    assert "the tables hold it only up to 4: offsets 5 to 7 are gone" in said.words
    assert "partition 0" not in said.words
    assert "go on without them with --accept-loss" in said.words
    assert len(ids(pipeline, "shortened")) == 10

    assert start(pipeline, contracts, "--accept-loss", "--until-caught-up").code == 0
    gone = Counter({(0, 1, offset): 1 for offset in (5, 6, 7)})
    assert offsets(pipeline, "shortened") == once({(0, 0): 10, (0, 1): 10}) - gone
    assert ids(pipeline, "shortened") == [*range(15), 18, 19]


def once(ends: dict[tuple[int, int], int]) -> Counter[tuple[int, int, int]]:
    """Give each offset below the ends of (epoch, partition), once."""
    return Counter({(epoch, partition, n): 1 for (epoch, partition), end in ends.items() for n in range(end)})

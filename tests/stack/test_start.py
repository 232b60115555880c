"""Where a start begins to read, on a real broker: what the tables and earlier starts say, never a guess."""

from __future__ import annotations

from pathlib import Path

import pytest
from kafka import TopicPartition

from contracts.load import load_contracts
from jobs.errors import KafkaProblem, RunRefused
from jobs.ingest import subscription
from jobs.kafka.client import KafkaClient
from jobs.kafka.topics import delete_topics, ensure_topics
from jobs.start import Asked, StartPlan, plan_start
from lakehouse.lake import Lake
from lakehouse.parking import Parking
from tests.flows.streams import events, produce, write_contract

pytestmark = pytest.mark.integration


class Starts:
    """Starts of one pipeline that never commits anything."""

    def __init__(self, kafka: KafkaClient, folder: Path, topic: str, start: str) -> None:
        self.kafka, self.topic = kafka, topic
        self.lake = Lake.open(str(folder / "lake"))
        self.contracts = load_contracts(write_contract(folder / "contracts", "plain", topic, start=start), {})

    def plan(self, *, accept_loss: bool = False) -> StartPlan:
        asked = Asked(accept_loss=accept_loss)
        return plan_start(self.contracts, self.lake, "p", self.kafka, asked)

    def start(self, *, accept_loss: bool = False) -> dict[tuple[str, int], int]:
        plan = self.plan(accept_loss=accept_loss)
        plan.keep(self.lake, "p")
        return dict(plan.offsets)


def test_a_stream_that_begins_at_the_end_reads_what_came_while_it_was_stopped(
    kafka: KafkaClient, topic: str, tmp_path: Path
) -> None:
    produce(kafka, topic, events(1, 3))
    starts = Starts(kafka, tmp_path, topic, "latest")
    assert starts.start() == {(topic, 0): 3}
    produce(kafka, topic, events(4, 5))
    assert starts.start() == {(topic, 0): 3}


def test_a_start_that_was_only_looked_at_decides_nothing(kafka: KafkaClient, topic: str, tmp_path: Path) -> None:
    starts = Starts(kafka, tmp_path, topic, "latest")
    assert starts.plan().offsets == {(topic, 0): 0}
    produce(kafka, topic, events(1, 2))
    assert starts.start() == {(topic, 0): 2}


def test_partitions_and_topics_that_came_later_are_read_in_whole(
    kafka: KafkaClient, topic: str, tmp_path: Path
) -> None:
    produce(kafka, topic, events(1, 3))
    starts = Starts(kafka, tmp_path, topic, "latest")
    starts.start()
    ensure_topics(kafka, {topic: 2})
    assert starts.start() == {(topic, 0): 3, (topic, 1): 0}

    delete_topics(kafka, [topic])
    ensure_topics(kafka, {topic: 1})
    produce(kafka, topic, events(1, 3))
    assert starts.start() == {(topic, 0): 0}


def test_what_retention_took_after_the_first_start_is_a_loss(kafka: KafkaClient, topic: str, tmp_path: Path) -> None:
    produce(kafka, topic, events(1, 3))
    starts = Starts(kafka, tmp_path, topic, "latest")
    starts.start()
    produce(kafka, topic, events(4, 9))
    with kafka.admin() as admin:
        admin.delete_records({TopicPartition(topic, 0): 5})
    with pytest.raises(RunRefused, match="offsets 3 to 4 are gone"):
        starts.start()
    assert starts.start(accept_loss=True) == {(topic, 0): 5}


def test_a_topic_that_is_gone_holds_up_no_stream_but_its_own(kafka: KafkaClient, topic: str, tmp_path: Path) -> None:
    produce(kafka, topic, events(1, 3))
    starts = Starts(kafka, tmp_path, topic, "earliest")
    starts.contracts = load_contracts(write_contract(tmp_path / "contracts", "gone", f"{topic}-gone"), {})
    with pytest.raises(KafkaProblem, match=f"no topic {topic}-gone: create it, .* or pause its stream"):
        starts.plan()
    Parking(starts.lake, "p").park("gone")
    plan = starts.plan()
    assert (plan.offsets, plan.absent) == ({(topic, 0): 0}, [f"{topic}-gone"])
    assert subscription(starts.contracts, plan.absent) == {"topic": topic}

    Parking(starts.lake, "p").park("plain")
    delete_topics(kafka, [topic])
    with pytest.raises(KafkaProblem, match="none of the topics"):
        starts.plan()

"""Offsets, ids and groups on a real broker, transactions and aborted records included."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Producer

from jobs.errors import KafkaProblem
from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import (
    earliest_offsets,
    end_offsets,
    fresh_group,
    offsets_at,
    oldest_from,
    partitions_of,
    readable_between,
    topic_ids,
)
from jobs.kafka.topics import delete_topics, ensure_topics

pytestmark = pytest.mark.integration


def transactional(kafka: KafkaClient, name: str) -> Producer:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": name, "linger.ms": 0})
    producer.init_transactions(30)
    return producer


def write(kafka: KafkaClient, topic: str, outcome: str, records: int = 1) -> Producer:
    """Write records in one transaction; each transaction that ends adds a marker, which takes an offset too."""
    producer = transactional(kafka, f"{topic}-{outcome}-{time.monotonic_ns()}")
    producer.begin_transaction()
    for _ in range(records):
        producer.produce(topic, b"v", partition=0)
    producer.flush(30)
    if outcome == "commit":
        producer.commit_transaction(30)
    elif outcome == "abort":
        producer.abort_transaction(30)
    return producer


def test_markers_and_aborted_records_are_not_readable(kafka: KafkaClient, topic: str) -> None:
    write(kafka, topic, "commit")  # record 0, marker 1
    write(kafka, topic, "abort", 3)  # records 2 3 4, marker 5
    write(kafka, topic, "commit")  # record 6, marker 7
    assert end_offsets(kafka, [(topic, 0)]) == {(topic, 0): 8}
    assert readable_between(kafka, topic, 0, -1, 8)
    assert not readable_between(kafka, topic, 0, 0, 6)
    assert readable_between(kafka, topic, 0, 0, 7)
    assert not readable_between(kafka, topic, 0, 6, 8)
    assert not readable_between(kafka, topic, 0, 3, 4)


def test_the_oldest_readable_record_is_told_of_each_partition_at_once(kafka: KafkaClient, topic: str) -> None:
    ensure_topics(kafka, {topic: 4})
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for second in range(3):
        for partition in (1, 2):
            producer.produce(topic, b"v" * 200_000, partition=partition, timestamp=1_000 * second + partition)
        producer.flush(30)
    write(kafka, topic, "commit")  # record 0, marker 1
    write(kafka, topic, "abort", 3)  # records 2 3 4, marker 5
    ends = end_offsets(kafka, partitions_of(kafka, [topic]))
    one, two, three = (topic, 1), (topic, 2), (topic, 3)
    found = oldest_from(kafka, {(topic, 0): 1, one: 0, two: 2, three: 0}, ends)
    assert found == {(topic, 0): None, one: 1, two: 2_002, three: None}
    before = time.time() * 1000 - 60_000
    assert before < (oldest_from(kafka, {(topic, 0): 0}, ends)[topic, 0] or 0) < before + 120_000
    assert oldest_from(kafka, {one: 0}, ends, seconds=0) == {}, "no time, no answer"


def test_a_long_run_of_aborted_records_is_passed_over(kafka: KafkaClient, topic: str) -> None:
    write(kafka, topic, "abort", 5000)
    write(kafka, topic, "commit")
    assert not readable_between(kafka, topic, 0, -1, 5001)
    assert readable_between(kafka, topic, 0, -1, 5002)


def test_the_end_leaves_out_records_of_an_open_transaction(kafka: KafkaClient, topic: str) -> None:
    write(kafka, topic, "commit")
    producer = write(kafka, topic, "open", 2)
    assert end_offsets(kafka, [(topic, 0)]) == {(topic, 0): 2}
    assert not readable_between(kafka, topic, 0, 0, 100)
    producer.commit_transaction(30)
    assert end_offsets(kafka, [(topic, 0)]) == {(topic, 0): 5}
    assert readable_between(kafka, topic, 0, 0, 100)


def test_an_empty_topic_holds_nothing_to_read(kafka: KafkaClient, topic: str) -> None:
    assert earliest_offsets(kafka, [(topic, 0)]) == end_offsets(kafka, [(topic, 0)]) == {(topic, 0): 0}
    assert not readable_between(kafka, topic, 0, -1, 10)
    assert offsets_at(kafka, [(topic, 0)], 0) == {}


def test_deleted_records_move_the_earliest_offset(kafka: KafkaClient, topic: str) -> None:
    from kafka import TopicPartition

    write(kafka, topic, "commit", 5)
    with kafka.admin() as admin:
        admin.delete_records({TopicPartition(topic, 0): 3})
    assert earliest_offsets(kafka, [(topic, 0)]) == {(topic, 0): 3}
    assert readable_between(kafka, topic, 0, -1, 5)
    assert not readable_between(kafka, topic, 0, -1, 3)


def test_offsets_at_a_time_are_the_first_record_at_or_after_it(kafka: KafkaClient, topic: str) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for second in range(5):
        producer.produce(topic, b"v", partition=0, timestamp=1_000 * second + 1)
        producer.flush(30)
    assert offsets_at(kafka, [(topic, 0)], 2_000) == {(topic, 0): 2}
    assert offsets_at(kafka, [(topic, 0)], 9_000) == {}


def test_a_recreated_topic_has_another_id(kafka: KafkaClient, topic: str) -> None:
    before = topic_ids(kafka, [topic])[topic]
    assert topic_ids(kafka, [topic])[topic] == before
    delete_topics(kafka, [topic])
    with pytest.raises(KafkaProblem, match=f"has no topic {topic}"):
        topic_ids(kafka, [topic])
    ensure_topics(kafka, {topic: 1})
    assert topic_ids(kafka, [topic])[topic] != before


def test_partitions_are_added_to_a_topic_and_never_taken_away(kafka: KafkaClient, topic: str) -> None:
    ensure_topics(kafka, {topic: 3})
    ensure_topics(kafka, {topic: 2})
    assert partitions_of(kafka, [topic]) == [(topic, 0), (topic, 1), (topic, 2)]


def test_a_fresh_group_holds_the_offsets_it_was_given(kafka: KafkaClient, topic: str) -> None:
    ensure_topics(kafka, {topic: 2})
    assert fresh_group(kafka, f"group-{topic}", {(topic, 0): 7, (topic, 1): 0}) == f"group-{topic}"
    with kafka.admin() as admin:
        (found,) = admin.list_group_offsets(f"group-{topic}").values()
    assert {(p.topic, p.partition): o.offset for p, o in found.items()} == {(topic, 0): 7, (topic, 1): 0}

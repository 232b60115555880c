"""Offsets and topics as Kafka has them now. A partition is (topic, number); an end is one above the last offset."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kafka import IsolationLevel, OffsetSpec, TopicPartition
from kafka.errors import NoError, RetriableError
from kafka.structs import OffsetAndMetadata

from jobs.errors import KafkaProblem
from jobs.kafka.client import KafkaClient

Partition = tuple[str, int]

READ_TIMEOUT_SECONDS = 60.0
PEEKED_BYTES = 64 * 1024  # of a partition, to see its next record; a larger record comes whole all the same
COORDINATOR_TIMEOUT_SECONDS = 30.0


def partitions_of(kafka: KafkaClient, topics: Sequence[str]) -> list[Partition]:
    """Give all partitions of the topics, sorted; raises KafkaProblem for a topic that does not exist."""
    return sorted(
        (str(t["name"]), int(p["partition_index"])) for t in _described(kafka, topics) for p in t["partitions"]
    )


def topic_ids(kafka: KafkaClient, topics: Sequence[str]) -> dict[str, str]:
    """Give each topic's id: a topic that was deleted and made again has another (KIP-516)."""
    return {str(topic["name"]): str(topic["topic_id"]) for topic in _described(kafka, topics)}


def earliest_offsets(kafka: KafkaClient, partitions: Iterable[Partition]) -> dict[Partition, int]:
    """Give the lowest offset that each partition still holds."""
    return _offsets(kafka, partitions, OffsetSpec.EARLIEST)


def end_offsets(kafka: KafkaClient, partitions: Iterable[Partition]) -> dict[Partition, int]:
    """Give each partition's end for a read_committed reader: records of open transactions are not counted."""
    return _offsets(kafka, partitions, OffsetSpec.LATEST)


def offsets_at(kafka: KafkaClient, partitions: Iterable[Partition], timestamp_ms: int) -> dict[Partition, int]:
    """Give the first offset at or after a time; partitions without such a record are left out."""
    return {p: offset for p, offset in _offsets(kafka, partitions, timestamp_ms).items() if offset >= 0}


def readable_between(kafka: KafkaClient, topic: str, partition: int, after: int, before: int) -> bool:
    """Say whether a read_committed reader finds a record with after < offset < before.

    Transaction markers, aborted records and compacted ones are not found. Raises KafkaProblem when Kafka does not
    answer in time: no proof is no "no".
    """
    if before - after <= 1:
        return False
    place = TopicPartition(topic, partition)
    with kafka.consumer(max_poll_records=1) as consumer:
        consumer.assign([place])
        first = max(after + 1, consumer.beginning_offsets([place])[place])
        before = min(before, consumer.end_offsets([place])[place])
        if first >= before:
            return False
        consumer.seek(place, first)
        until = time.monotonic() + READ_TIMEOUT_SECONDS
        while time.monotonic() < until:
            records = consumer.poll(timeout_ms=500, max_records=1).get(place, [])
            if records:
                return bool(records[0].offset < before)
            # No record, yet the position moves over markers and aborted records.
            if consumer.position(place) >= before:
                return False
    raise KafkaProblem(f"topic {topic} partition {partition} could not be read from offset {first}: is a broker down?")


def oldest_from(
    kafka: KafkaClient, positions: Mapping[Partition, int], ends: Mapping[Partition, int], seconds: float = 5.0
) -> dict[Partition, int | None]:
    """Give when the first readable record from each position came to Kafka (its timestamp, ms).

    None where none is readable below the end (markers, aborted records); left out where Kafka did not say in time, or
    the record has no timestamp. Raises KafkaProblem.
    """
    left = {TopicPartition(*p): ends[p] for p, position in positions.items() if position < ends[p]}
    found: dict[Partition, int | None] = {p: None for p in positions if TopicPartition(*p) not in left}
    if not left:
        return found
    until = time.monotonic() + seconds
    with kafka.consumer(max_partition_fetch_bytes=PEEKED_BYTES) as consumer:
        consumer.assign(list(left))
        for place, begin in consumer.beginning_offsets(list(left)).items():
            consumer.seek(place, max(begin, positions[place.topic, place.partition]))
        while left and time.monotonic() < until:
            for place, records in consumer.poll(timeout_ms=200, max_records=1).items():
                end = left.pop(place, None)
                if end is not None and (records[0].offset >= end or records[0].timestamp >= 0):
                    found[place.topic, place.partition] = None if records[0].offset >= end else records[0].timestamp
            for place in [place for place, end in left.items() if consumer.position(place) >= end]:
                found[place.topic, place.partition] = None
                del left[place]
            consumer.pause(*[place for place in consumer.assignment() if place not in left])
    return found


def fresh_group(kafka: KafkaClient, group: str, offsets: Mapping[Partition, int]) -> str:
    """Write offsets as the committed positions of a consumer group that has no members, and give its name."""
    positions = {TopicPartition(*partition): OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}
    until = time.monotonic() + COORDINATOR_TIMEOUT_SECONDS
    while True:
        refused, may_pass = _commit(kafka, group, positions)
        if not refused:
            return group
        if not may_pass or time.monotonic() > until:
            raise KafkaProblem(f"Kafka refuses the start offsets of group {group}: {', '.join(refused)}")
        time.sleep(0.2)


def _commit(kafka: KafkaClient, group: str, positions: Mapping[TopicPartition, OffsetAndMetadata]) -> tuple[Any, bool]:
    """Commit once; give what was refused and why, and whether it may pass (a cluster's first group makes a topic)."""
    with kafka.admin() as admin:
        try:
            answers = admin.alter_group_offsets(group, positions)
        except RetriableError as error:
            return [type(error).__name__], True
    refused = {p: error for p, error in answers.items() if error is not NoError}
    named = sorted(f"{p.topic}-{p.partition}: {error.__name__}" for p, error in refused.items())
    return named, all(issubclass(error, RetriableError) for error in refused.values())


def _offsets(kafka: KafkaClient, partitions: Iterable[Partition], wanted: int) -> dict[Partition, int]:
    asked = {TopicPartition(*partition): wanted for partition in partitions}
    if not asked:
        return {}
    with kafka.admin() as admin:
        found = admin.list_partition_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED)
    return {(place.topic, place.partition): int(answer.offset) for place, answer in found.items()}


def _described(kafka: KafkaClient, topics: Sequence[str]) -> list[dict[str, Any]]:
    if not topics:
        return []
    with kafka.admin() as admin:
        found: list[dict[str, Any]] = admin.describe_topics(list(topics))
    missing = sorted(str(topic["name"]) for topic in found if topic.get("error_code"))
    if missing:
        raise KafkaProblem(
            f"Kafka at {kafka.bootstrap} has no topic {', '.join(missing)}: create it, or correct the name"
        )
    return found

"""Records of known offsets, read outside the job: in batches, as refine takes them (contracts.columns.RECORDS)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from kafka import TopicPartition

from contracts.columns import RECORDS
from jobs.errors import KafkaProblem
from jobs.kafka.client import KafkaClient

Partition = tuple[str, int]  # topic, partition
BATCH = 10_000  # records
READ_SECONDS = 60.0  # without a record, before Kafka is given up
NEAR = 5_000  # offsets that are read over rather than sought


def records_between(kafka: KafkaClient, spans: Mapping[Partition, tuple[int, int]], lacking: str) -> Iterator[pa.Table]:
    """Give the records of offset spans (first and last, both included) that Kafka still holds.

    lacking: how a sentence begins that says what is lost when Kafka gives no more. Raises KafkaProblem.
    """
    left = {TopicPartition(*partition): last for partition, (_, last) in spans.items()}
    if not left:
        return
    with kafka.consumer(max_poll_records=BATCH) as consumer:
        consumer.assign(list(left))
        held = consumer.beginning_offsets(list(left))
        for place in left:
            consumer.seek(place, max(spans[place.topic, place.partition][0], held[place]))
        until = time.monotonic() + READ_SECONDS
        left = {place: last for place, last in left.items() if consumer.position(place) <= last}
        while left:
            polled = consumer.poll(timeout_ms=500)
            rows = [
                record_row(record)
                for place, own in polled.items()
                for record in own
                if record.offset <= left.get(place, -1)
            ]
            left = {place: last for place, last in left.items() if consumer.position(place) <= last}
            if rows:
                until = time.monotonic() + READ_SECONDS
                yield pa.Table.from_pylist(rows, schema=RECORDS)
            elif time.monotonic() > until:
                raise KafkaProblem(f"{lacking} that Kafka does not give: {left}")


def records_at(kafka: KafkaClient, wanted: Mapping[Partition, Sequence[int]], lacking: str) -> Iterator[pa.Table]:
    """Give the records at offsets (ascending) that Kafka still holds; what lies between is read over or skipped."""
    for partition, offsets in wanted.items():
        runs: list[list[int]] = []
        for offset in offsets:
            if runs and offset - runs[-1][-1] <= NEAR:
                runs[-1].append(offset)
            else:
                runs.append([offset])
        for run in runs:
            asked = pa.array(run, pa.int64())
            for records in records_between(kafka, {partition: (run[0], run[-1])}, lacking):
                chosen = records.filter(pc.is_in(records["offset"], value_set=asked))
                if len(chosen):
                    yield chosen


def record_row(record: Any) -> dict[str, Any]:
    """Give a record as refine takes it."""
    headers = dict(record.headers)
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": record.key,
        "value": record.value,
        "old_key": headers.get("__debezium.oldkey"),
        "new_key": headers.get("__debezium.newkey"),
    }

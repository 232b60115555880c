"""Loads the benchmark's records into Kafka: as fast as it goes, all to be seen at one moment, or so many a second."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.synchronize import Barrier, Event
from typing import Any

import pyarrow as pa
from confluent_kafka import Producer

from contracts.columns import RECORDS
from contracts.model import Encoding
from jobs.kafka.client import KafkaClient
from jobs.kafka.topics import ensure_topics
from tests.bench.as_avro import AvroRecords
from tests.bench.as_json import JsonRecords
from tests.bench.records import KEYS, Records

CHUNK = 50_000  # records made at once
WRITERS = 2  # processes
PACED_CHUNK = 2_000  # small: making it must not be felt in the pace
TICK_SECONDS = 0.02  # of the paced writer
HELD_SECONDS = 900.0  # how long records may be held back: as long as the broker lets a transaction be open

# Big batches, nothing compressed (Kafka Connect's default), one broker: the writer must be faster than any reader.
SETTINGS = {
    "linger.ms": 20,
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 512 * 1024,
    "acks": 1,
}


@dataclass(frozen=True)
class Load:
    """What is written where. Every topic gets its share of the customers, every partition of a topic likewise."""

    kafka: str  # host:port
    topics: Sequence[str]
    partitions: int  # of each topic
    encoding: Encoding
    schema_ids: tuple[int, int] = (0, 0)  # of key and value, for Avro
    seed: int = 1
    keys: int = KEYS  # different customers
    whole: bool = False  # every topic has all customers, and not its share of them

    def create(self) -> None:
        """Create the topics."""
        ensure_topics(KafkaClient.from_file(None, self.kafka), dict.fromkeys(self.topics, self.partitions))

    def of(self, records: Records) -> JsonRecords | AvroRecords:
        """Give the records in the load's encoding."""
        if self.encoding is Encoding.AVRO:
            return AvroRecords(records, *self.schema_ids)
        return JsonRecords(records)

    def places(self, records: Records) -> tuple[list[str], list[int]]:
        """Give topic and partition of each record: all records of a customer go to one partition."""
        place = records.ident % (len(self.topics) * self.partitions)
        if self.whole:
            place = records.number % len(self.topics) * self.partitions + records.ident % self.partitions
        topics = pa.array(self.topics).take(pa.array(place // self.partitions)).to_pylist()
        return topics, (place % self.partitions).tolist()


def load(what: Load, count: int, first: int = 0) -> float:
    """Write so many records from a number on with several processes, and give how many seconds it took."""
    what.create()
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WRITERS, mp_context=context) as pool:
        for writer in [pool.submit(_write_lane, what, size, lane, first) for lane, size in enumerate(_shares(count))]:
            writer.result()
    return time.monotonic() - started


@contextmanager
def held(what: Load, count: int, first: int) -> Iterator[Callable[[], float]]:
    """Write as load does, for the block in open transactions, which no reader sees the records of.

    Gives a function that ends the transactions: all records can be read soon after the moment (seconds since the
    epoch) that it gives.
    """
    what.create()
    context = multiprocessing.get_context("spawn")
    written, shown = context.Barrier(WRITERS + 1), context.Event()
    lanes = [
        context.Process(target=_hold_lane, args=(what, size, lane, first, written, shown))
        for lane, size in enumerate(_shares(count))
    ]

    def show() -> float:
        moment = time.time()
        shown.set()
        return moment

    for lane in lanes:
        lane.start()
    try:
        written.wait(HELD_SECONDS)
        yield show
    finally:
        shown.set()
        for lane in lanes:
            lane.join()


def _shares(count: int) -> list[int]:
    share = count // WRITERS
    return [share + (count - share * WRITERS if lane == 0 else 0) for lane in range(WRITERS)]


def _hold_lane(  # noqa: PLR0917 (the arguments of a process)
    what: Load, count: int, lane: int, first: int, written: Barrier, shown: Event
) -> None:
    transaction = {"transactional.id": f"{what.topics[0]}-{lane}", "transaction.timeout.ms": int(HELD_SECONDS * 1000)}
    producer = _producer(what.kafka, {**transaction, "acks": "all"})
    try:
        producer.init_transactions(60)
        producer.begin_transaction()
        _write(producer, what, count, lane, first)
    except BaseException:
        written.abort()  # nobody waits for a lane that failed
        raise
    written.wait(HELD_SECONDS)
    shown.wait(HELD_SECONDS)
    producer.commit_transaction(60)


def _write_lane(what: Load, count: int, lane: int, first: int) -> None:
    _write(_producer(what.kafka), what, count, lane, first)


def _write(producer: Producer, what: Load, count: int, lane: int, first: int) -> None:
    for low in range(0, count, CHUNK):
        records = Records(first + low * WRITERS, min(CHUNK, count - low), what.seed, lane, WRITERS, what.keys)
        for message in _messages(what, records):
            _send(producer, *message)
        producer.poll(0)
    _finish(producer)


def pace(what: Load, per_second: int, seconds: float, first: int = 0) -> float:
    """Write so many records a second, evenly, and give the rate that was kept up."""
    producer = _producer(what.kafka, {"linger.ms": 5})
    total = int(per_second * seconds)
    messages = _stream(what, first, total)
    started, sent = time.monotonic(), 0
    while sent < total:
        due = min(total, int((time.monotonic() - started) * per_second))
        for message in islice(messages, due - sent):
            _send(producer, *message)
        sent = due
        producer.poll(0)
        time.sleep(TICK_SECONDS)
    _finish(producer)
    return total / (time.monotonic() - started)


def _stream(what: Load, first: int, count: int) -> Iterator[tuple[str, bytes, bytes, int]]:
    for low in range(first, first + count, PACED_CHUNK):
        yield from _messages(what, Records(low, min(PACED_CHUNK, first + count - low), what.seed, keys=what.keys))


def _messages(what: Load, records: Records) -> Iterator[tuple[str, bytes, bytes, int]]:
    """Give (topic, value, key, partition) of each record."""
    written = what.of(records)
    topics, partitions = what.places(records)
    return zip(topics, written.values().to_pylist(), written.keys().to_pylist(), partitions, strict=True)


def _producer(kafka: str, more: dict[str, Any] | None = None) -> Producer:
    return Producer({"bootstrap.servers": kafka, **SETTINGS, **(more or {})})


def _send(producer: Producer, topic: str, value: bytes, key: bytes, partition: int) -> None:
    while True:
        try:
            producer.produce(topic, value, key, partition)
            return
        except BufferError:  # the queue is full: the broker is slower than we are
            producer.poll(0.05)


def _finish(producer: Producer) -> None:
    left = producer.flush(120)
    if left:
        raise RuntimeError(f"{left} records did not reach Kafka within two minutes")


def raw_batch(what: Load, count: int, first: int = 0) -> pa.Table:
    """Give records as refine gets them from Flink: sorted by topic and partition, offsets counted from 0."""
    records = Records(first, count, what.seed, keys=what.keys)
    written = what.of(records)
    topics, partitions = what.places(records)
    none = pa.nulls(count, pa.binary())
    table = pa.Table.from_arrays(
        [
            pa.array(topics, pa.string()), pa.array(partitions, pa.int32()), pa.array(records.number),
            pa.array(records.committed_ms), written.keys(), written.values(), none, none,
        ],
        schema=RECORDS,
    )  # fmt: skip
    return table.sort_by([("topic", "ascending"), ("partition", "ascending"), ("offset", "ascending")])

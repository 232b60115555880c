"""The producer of a chaos run: keeps records flowing into every partition, in order and each exactly once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tests.chaos.changes import records_of
from tests.chaos.records import FLOWING, Topic

TICK_SECONDS = 0.05
HURRY = 8  # times the usual rate
TRICKLE = 0.1  # of the usual rate, once there are as many records as wanted: something must always flow
Partition = tuple[Topic, int]


class Flow:
    """Produces at a steady rate (records a second) from a thread of its own, until told to stop.

    Idempotent, so that a broker's death neither loses nor repeats nor reorders: the n-th record of a partition stands
    at offset n. `finish` proves that against the broker.
    """

    def __init__(self, bootstrap: str, seed: int, rate: float, wanted: int, encoding: str) -> None:
        self._wanted, self._encoding = wanted, encoding
        self.produced: Counter[Partition] = Counter()
        self._bootstrap, self._seed, self._rate = bootstrap, seed, rate
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._running = threading.Event()
        self._running.set()
        self._hurry_until = 0.0
        self._refused: list[str] = []
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "message.timeout.ms": 0,  # for ever: a broker that is down comes back
                "linger.ms": 20,
                "queue.buffering.max.messages": 500_000,
                "delivery.report.only.error": True,
                "reconnect.backoff.max.ms": 1000,
                "log_level": 2,  # a broker that is down is no news here
            }
        )
        self._thread = threading.Thread(target=self._run, name="flow", daemon=True)

    @property
    def total(self) -> int:
        """How many records the flowing topics have been given."""
        return sum(count for (topic, _), count in self.produced.items() if topic in FLOWING)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def pause(self) -> None:
        """Let the topics be quiet."""
        self._running.clear()

    def resume(self) -> None:
        """Go on after a pause."""
        self._running.set()

    def hurry(self, seconds: float) -> None:
        """Produce HURRY times as fast for a while."""
        self._hurry_until = time.monotonic() + seconds

    def add(self, topic: Topic, partition: int, count: int) -> None:
        """Produce some records more; returns when they are queued."""
        with self._lock:
            first = self.produced[topic, partition]
            for message in records_of(self._seed, topic, partition, first, count, self._encoding).messages():
                self._queue(topic.name, partition, message)
            self.produced[topic, partition] += count

    def delivered(self, seconds: float = 60.0) -> None:
        """Wait until the broker has all; raises RuntimeError when it does not take them in time."""
        left = self._producer.flush(seconds)
        if left or self._refused:
            raise RuntimeError(f"the producer could not deliver {left} records: {self._refused[:3]}")

    def finish(self) -> None:
        """Stop, after as many records as are still wanted, and prove that each stands at the offset it should."""
        self.stop()
        while (missing := self._wanted - self.total) > 0:
            self._spread(min(missing, 60_000))
        self.delivered(120.0)
        consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": "chaos-ends"})
        for (topic, partition), count in self.produced.items():
            _, end = consumer.get_watermark_offsets(TopicPartition(topic.name, partition), timeout=30)
            if end != count:
                raise RuntimeError(f"the generator is wrong, {topic.name}-{partition} ends at {end}, not {count}")
        consumer.close()

    def stop(self) -> None:
        """End the thread; harmless twice."""
        self._ended.set()
        self._running.set()
        self._producer.poll(0)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            begun = time.monotonic()
            self._running.wait()
            steady = TRICKLE if self.total >= self._wanted else 1
            factor = HURRY if begun < self._hurry_until else steady
            self._spread(int(self._rate * TICK_SECONDS * factor))
            self._producer.poll(0)
            self._ended.wait(max(0.0, TICK_SECONDS - (time.monotonic() - begun)))

    def _spread(self, count: int) -> None:
        partitions = [(topic, number) for topic in FLOWING for number in range(topic.partitions)]
        for topic, number in partitions:
            self.add(topic, number, max(1, count // len(partitions)))

    def _queue(self, topic: str, partition: int, message: dict[str, Any]) -> None:
        while True:
            try:
                self._producer.produce(topic, partition=partition, on_delivery=self._report, **message)
                return
            except BufferError:
                self._producer.poll(0.1)

    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._refused.append(str(KafkaException(error)))

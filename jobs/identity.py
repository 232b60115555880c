"""Whether the topics are still the ones the tables were filled from: asked of Kafka every minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection

from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import end_offsets, partitions_of, topic_ids
from lakehouse.identity import TopicIdentity

EVERY_SECONDS = 60.0


class IdentityWatch:
    """Gives what Kafka said of the topics at most EVERY_SECONDS ago; asked once for all streams of a worker."""

    def __init__(self, kafka: KafkaClient) -> None:
        self._kafka = kafka
        self._lock = threading.Lock()
        self._topics: frozenset[str] = frozenset()
        self._last = TopicIdentity()

    def of(self, topics: Collection[str]) -> TopicIdentity:
        """Give ids and end offsets of the topics (and of others asked for before)."""
        with self._lock:
            new = not self._topics.issuperset(topics)
            if new or time.monotonic() - self._last.taken_at > EVERY_SECONDS:
                self._topics |= frozenset(topics)
                taken_at = time.monotonic()
                names = sorted(self._topics)
                ends = end_offsets(self._kafka, partitions_of(self._kafka, names))
                self._last = TopicIdentity(topic_ids(self._kafka, names), ends, taken_at)
            return self._last

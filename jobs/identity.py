"""Whether the topics are still the ones the tables were filled from: asked of Kafka every minute."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Collection

from jobs.errors import KafkaProblem
from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import end_offsets, partitions_of, topic_ids
from lakehouse.identity import TopicIdentity

RETRY_SECONDS = 5.0  # after a question that Kafka did not answer


class IdentityWatch:
    """Gives what Kafka said of the topics at most `every_seconds` ago; asked once for all streams of a worker."""

    def __init__(self, kafka: KafkaClient, every_seconds: float = 60.0) -> None:
        self._kafka = kafka
        self._every = every_seconds
        self._lock = threading.Lock()
        self._topics: frozenset[str] = frozenset()
        self._patterns: set[str] = set()
        self._last = TopicIdentity()
        self._due = float("-inf")

    def of(self, topics: Collection[str], *, pattern: str | None = None, now: bool = False) -> TopicIdentity:
        """Give ids and end offsets of the topics and of all whose whole name matches a pattern (and of others asked for
        before); `now`: not from memory.

        A topic that does not exist is left out. While Kafka is away, what it said last counts; raises KafkaProblem for
        topics of which it never said anything.
        """
        with self._lock:
            patterns = self._patterns | ({pattern} if pattern else set())
            new = not self._topics.issuperset(topics) or patterns != self._patterns
            if new or now or time.monotonic() > self._due:
                try:
                    self._last = self._ask(self._topics | frozenset(topics), patterns)
                    self._topics |= frozenset(topics)
                    self._patterns = patterns
                    self._due = self._last.taken_at + self._every
                except KafkaProblem:
                    if new or now:
                        raise
                    self._due = time.monotonic() + RETRY_SECONDS
            return self._last

    def _ask(self, topics: Collection[str], patterns: Collection[str]) -> TopicIdentity:
        taken_at = time.monotonic()
        every = self._kafka.topics()
        there = sorted(t for t in every if t in topics or any(re.fullmatch(pattern, t) for pattern in patterns))
        ends = end_offsets(self._kafka, partitions_of(self._kafka, there))
        return TopicIdentity(topic_ids(self._kafka, there), ends, taken_at)

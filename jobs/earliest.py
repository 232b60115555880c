"""What Kafka still holds: the lowest offset of a partition, less what the user has agreed to lose."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping

from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import earliest_offsets

Partition = tuple[str, int]  # topic, partition


class Earliest:
    """Gives the lowest offset of each of the partitions, asked once, and only when one is wanted.

    For sections that were read before: what Kafka holds now, it held then. 0 where all that is gone was accepted as
    lost when the job was started. Raises KafkaProblem.
    """

    def __init__(
        self, kafka: KafkaClient, partitions: Collection[Partition], accepted: Mapping[Partition, int]
    ) -> None:
        self._kafka = kafka
        self._partitions = partitions
        self._accepted = accepted
        self._lock = threading.Lock()
        self._found: dict[Partition, int] = {}

    def __call__(self, topic: str, partition: int) -> int:
        """Give the partition's lowest offset."""
        place = (topic, partition)
        with self._lock:
            if not self._found:
                self._found = earliest_offsets(self._kafka, self._partitions)
            found = self._found[place]
        return 0 if found <= self._accepted.get(place, 0) else found

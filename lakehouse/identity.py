"""Whether a topic is still the one that the tables were filled from. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from lakehouse.errors import FatalError, TopicRecreated, TopicTruncated

Partition = tuple[str, int]  # topic, partition


@dataclass(frozen=True)
class TopicIdentity:
    """What Kafka says of topics: their ids, and the end offset (one above the last record) of their partitions.

    taken_at is time.monotonic() before Kafka was asked: ends are only compared with progress known by then.
    """

    ids: Mapping[str, str] = field(default_factory=dict)
    ends: Mapping[Partition, int] = field(default_factory=dict)
    taken_at: float = float("-inf")

    def only(self, wanted: Callable[[str], bool]) -> TopicIdentity:
        """Give what is said of some topics."""
        ids = {topic: value for topic, value in self.ids.items() if wanted(topic)}
        return replace(self, ids=ids, ends={place: end for place, end in self.ends.items() if wanted(place[0])})


def verify_identity(
    stream: str, known: Mapping[str, str], progress: Mapping[Partition, int], current: TopicIdentity
) -> list[FatalError]:
    """Give what is wrong: a topic with another id than the known one, or a partition that ends before its progress.

    known: topic -> id, from the anchor's state. progress must have been read before Kafka was asked for the ends.
    """
    problems: list[FatalError] = [
        TopicRecreated(stream, topic, known[topic], got)
        for topic, got in sorted(current.ids.items())
        if known.get(topic, got) != got
    ]
    for (topic, partition), end in sorted(current.ends.items()):
        reached = progress.get((topic, partition))
        if reached is not None and end < reached + 1:
            problems.append(TopicTruncated(stream, topic, partition, reached, end))
    return problems

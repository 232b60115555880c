"""Which offsets are to be read again, from what a user says, Kafka holds and the tables have committed. Pure but for
the questions that times need."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from jobs.errors import RunRefused

Partition = tuple[str, int]  # topic, partition
Spans = Mapping[Partition, tuple[int, int]]  # first and last offset, both included
_PLACE = re.compile(r"(?:(.+):)?(\d+):(\d+)")


@dataclass(frozen=True)
class Asked:
    """Where to begin and to end: offsets of some partitions, a time (ms), or neither, which is all there is."""

    from_offsets: tuple[str, ...] = ()
    from_ms: int | None = None
    to_offsets: tuple[str, ...] = ()
    to_ms: int | None = None


@dataclass(frozen=True)
class Found:
    """The offsets to read, and what cannot be read any more, as sentences."""

    spans: Spans
    lost: Sequence[str] = field(default_factory=tuple)

    @property
    def total(self) -> int:
        """Give how many offsets there are."""
        return sum(last - first + 1 for first, last in self.spans.values())


def places(texts: Sequence[str], partitions: Collection[Partition]) -> dict[Partition, int]:
    """Give the offsets that PARTITION:OFFSET or TOPIC:PARTITION:OFFSET name. Raises RunRefused for any other text."""
    topics = sorted({topic for topic, _ in partitions})
    found: dict[Partition, int] = {}
    for text in texts:
        read = _PLACE.fullmatch(text)
        if read is None or (read[1] is None and len(topics) != 1):
            wanted = "PARTITION:OFFSET" if len(topics) == 1 else "TOPIC:PARTITION:OFFSET, of several topics"
            raise RunRefused(f"{text!r} is not {wanted}")
        partition = read[1] or topics[0], int(read[2])
        if partition not in partitions:
            raise RunRefused(f"{text!r}: the stream has committed nothing of topic {partition[0]} partition {read[2]}")
        found[partition] = int(read[3])
    return found


def spans_of(
    begins: Mapping[Partition, int],
    ends: Mapping[Partition, int],
    earliest: Mapping[Partition, int],
    progress: Mapping[Partition, int],
) -> Found:
    """Give the offsets from where each partition begins, up to its end, as far as Kafka and the tables hold them.

    begins: the partitions that are meant; ends: the last offset of those that end before the progress.
    """
    spans, lost = {}, []
    for (topic, number), begin in sorted(begins.items()):
        partition = topic, number
        last = min(ends.get(partition, progress[partition]), progress[partition])
        first = max(begin, earliest[partition])
        if begin < first and begin <= last:
            gone = f"{begin} to {min(first - 1, last)}"
            lost.append(f"topic {topic} partition {number} begins at offset {first} by now: {gone} cannot be read")
        if first <= last:
            spans[partition] = first, last
    return Found(spans, tuple(lost))

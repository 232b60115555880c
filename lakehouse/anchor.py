"""What a stream's anchor table remembers in each of its commits: time, positions, identity and counts.

The state is one JSON object in the commit's metadata (key `tidegate`), repeated in every commit, so that one read of
the log's tail finds it. A partition is an array: [epoch, begins, highest event time, highest position's major and
minor (doubled, as lakehouse.resent composes it), when it was last active, end offset,
LSN of the newest initial snapshot]; times in ms since the epoch.

What was decided about the epochs of topics, and seen of them, is in `lives` (lakehouse.lives), which is left out where
there is nothing to say.

Where the stream has several lanes, the state holds what each lane's newest commit said of it (`parts`), and beside them
what is true of the stream: see lakehouse.lane_states.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from lakehouse.lives import Life, life_in

Partition = tuple[str, int]  # topic, partition
METADATA_KEY = "tidegate"
FORMAT = 1

Floor = tuple[int, int, int | None]  # rank (major, minor) of a truncate, and when it happened (us)
Floors = Mapping[str, tuple[Floor, ...]]  # by topic, ascending
KEPT_FLOORS = 32  # of one topic


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What is remembered of one partition."""

    epoch: int
    begins: int  # the first offset ever committed
    event_time: int | None = None
    major: int | None = None
    minor: int | None = None
    active: int | None = None
    end: int | None = None
    snapshot: int | None = None  # LSN of the newest initial snapshot

    def to_list(self) -> list[int | None]:
        """Give the values in the order of the array."""
        return [self.epoch, self.begins, self.event_time, self.major, self.minor, self.active, self.end, self.snapshot]


@dataclass(frozen=True)
class AnchorState:
    """What a stream's tables stand at, beside the progress (which is in the txn actions)."""

    pipeline: str
    stream: str
    version: str = ""  # of the project that wrote it
    commit: str = ""  # unique per attempt to commit, to recognise our own after a failure
    watermark_ms: int | None = None
    topics: Mapping[str, str] = field(default_factory=dict)  # topic -> Kafka topic id
    tables: Mapping[str, tuple[str, int]] = field(default_factory=dict)  # kind -> table id, version when last seen
    counts: Mapping[str, int] = field(default_factory=dict)  # since the beginning
    last_counts: Mapping[str, int] = field(default_factory=dict)  # of this commit
    ranges: tuple[tuple[str, int, int, int, int], ...] = ()  # of this commit: topic, partition, first, last, records
    partitions: Mapping[Partition, PartitionState] = field(default_factory=dict)
    awaited: Mapping[Partition, int] = field(default_factory=dict)  # that brought nothing yet -> since when (ms)
    floors: Floors = field(default_factory=dict)
    snapshots: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # topic -> its newest snapshot
    lives: Mapping[str, Life] = field(default_factory=dict)  # by topic; asked for by life()
    lanes: int = 1  # of the stream
    parts: Mapping[int, AnchorState] = field(default_factory=dict)  # lane -> its own state; empty for one lane
    lane: int | None = None  # whose own state this is; None: the stream's

    def epochs(self) -> dict[str, int]:
        """Give the epoch of each topic."""
        epochs: dict[str, int] = {}
        for (topic, _), state in self.partitions.items():
            epochs[topic] = max(state.epoch, epochs.get(topic, 0))
        return epochs

    def life(self, topic: str) -> Life:
        """Give what is known of a topic's epochs."""
        return life_in(self.lives.get(topic), self.epochs().get(topic, 0))

    def to_json(self) -> str:
        """Give the state as JSON."""
        return orjson.dumps(self._fields()).decode()

    def _fields(self) -> dict[str, Any]:
        partitions: dict[str, dict[str, list[int | None]]] = {}
        for (topic, number), state in self.partitions.items():
            partitions.setdefault(topic, {})[str(number)] = state.to_list()
        lives = {topic: life.to_json() for topic, life in self.lives.items()}
        several = {"lanes": self.lanes, "parts": {str(n): part._fields() for n, part in self.parts.items()}}
        return {
            "format": FORMAT,
            "pipeline": self.pipeline,
            "stream": self.stream,
            "version": self.version,
            "commit": self.commit,
            "watermark_ms": self.watermark_ms,
            "topics": self.topics,
            "tables": self.tables,
            "counts": self.counts,
            "last_counts": self.last_counts,
            "ranges": self.ranges,
            "partitions": partitions,
            "awaited": [[*partition, since] for partition, since in self.awaited.items()],
            "floors": self.floors,
            "snapshots": self.snapshots,
            **({"lives": lives} if lives else {}),
            **(several if self.lanes > 1 else {}),
        }

    @classmethod
    def from_json(cls, text: str) -> AnchorState:
        """Give the state that to_json wrote; unknown keys of later versions are ignored."""
        return cls._of(orjson.loads(text))

    @classmethod
    def _of(cls, read: Mapping[str, Any], lane: int | None = None) -> AnchorState:
        partitions = {
            (topic, int(number)): PartitionState(*values)
            for topic, numbers in read["partitions"].items()
            for number, values in numbers.items()
        }
        return cls(
            pipeline=read["pipeline"],
            stream=read["stream"],
            version=read["version"],
            commit=read["commit"],
            watermark_ms=read["watermark_ms"],
            topics=read["topics"],
            tables={kind: (table[0], table[1]) for kind, table in read["tables"].items()},
            counts=read["counts"],
            last_counts=read["last_counts"],
            ranges=tuple(tuple(r) for r in read["ranges"]),
            partitions=partitions,
            awaited={(topic, number): since for topic, number, since in read.get("awaited", ())},
            floors={topic: tuple((f[0], f[1], f[2]) for f in own) for topic, own in read.get("floors", {}).items()},
            snapshots=read.get("snapshots", {}),
            lives={topic: Life.from_json(life) for topic, life in read.get("lives", {}).items()},
            lanes=read.get("lanes", 1),
            parts={int(number): cls._of(part, int(number)) for number, part in read.get("parts", {}).items()},
            lane=lane,
        )


def merged_floors(*several: Mapping[str, Iterable[Floor]]) -> dict[str, tuple[Floor, ...]]:
    """Give all floors in order, the newest KEPT_FLOORS of each topic."""
    topics = sorted({topic for floors in several for topic in floors})
    every = {topic: {floor for floors in several for floor in floors.get(topic, ())} for topic in topics}
    return {topic: tuple(sorted(found)[-KEPT_FLOORS:]) for topic, found in every.items()}

"""Where a start begins: read from the Delta log, never from Kafka's consumer groups or Flink's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from contracts.model import Contract
from lakehouse.anchor import AnchorState
from lakehouse.errors import RetentionLoss
from lakehouse.kinds import kinds_of
from lakehouse.lake import Lake
from lakehouse.progress import Partition
from lakehouse.shape import shape_of
from lakehouse.table import StreamTable

THREADS = 16  # streams asked at once: each waits for the storage


@dataclass(frozen=True)
class StreamPosition:
    """How far one stream's tables are; without a state the stream was never committed."""

    stream: str
    progress: Mapping[Partition, int] = field(default_factory=dict)  # last applied offset
    state: AnchorState | None = None

    @property
    def epochs(self) -> dict[str, int]:
        """Give the epoch of each topic."""
        return self.state.epochs() if self.state else {}

    @property
    def topic_ids(self) -> Mapping[str, str]:
        """Give the Kafka topic ids that the tables were filled from."""
        return self.state.topics if self.state else {}


def read_position(
    lake: Lake, contract: Contract, pipeline: str, epochs: Mapping[str, int] | None = None
) -> StreamPosition:
    """Give one stream's position; creates nothing.

    epochs: topics that go on with another epoch than the tables'; they have no progress in it until the first commit.
    Raises what StreamTable.state raises.
    """
    kind = kinds_of(contract.tables)[-1]
    asked: dict[str, int] = {}
    table = StreamTable(lake, kind, shape_of(kind, contract, {}), pipeline, asked)
    if not table.open() or (state := table.state()) is None:
        return StreamPosition(contract.stream)
    asked.update({**state.epochs(), **(epochs or {})})
    return StreamPosition(contract.stream, table.progress(state.partitions), state)


def read_positions(
    lake: Lake, contracts: Sequence[Contract], pipeline: str, epochs: Mapping[str, int] | None = None
) -> dict[str, StreamPosition]:
    """Give every stream's position, by stream."""
    with ThreadPoolExecutor(min(THREADS, max(1, len(contracts)))) as pool:
        positions = pool.map(lambda contract: read_position(lake, contract, pipeline, epochs), contracts)
        return {position.stream: position for position in positions}


def start_offsets(positions: Mapping[str, StreamPosition]) -> dict[Partition, int]:
    """Give the first offset to read of each partition that any stream has progress in: the minimum over those streams.

    A stream without a state follows its contract's `start`, which may lower it; a partition that no stream has
    progress in is new and begins at the earliest offset once its stream has a state.
    """
    offsets: dict[Partition, int] = {}
    for position in positions.values():
        for partition, last in position.progress.items():
            offsets[partition] = min(last + 1, offsets.get(partition, last + 1))
    return offsets


def lost_to_retention(
    positions: Mapping[str, StreamPosition], earliest: Mapping[Partition, int]
) -> list[RetentionLoss]:
    """Give what Kafka deleted before it was read: partitions whose earliest offset lies above the progress + 1."""
    return [
        RetentionLoss(stream, topic, partition, last, earliest[topic, partition])
        for stream, position in sorted(positions.items())
        for (topic, partition), last in sorted(position.progress.items())
        if earliest.get((topic, partition), 0) > last + 1
    ]

"""Where a stream's tables stand, read without touching them: for starting, watching and status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from contracts.model import Contract
from lakehouse.anchor import AnchorState, Partition
from lakehouse.kinds import kinds_of
from lakehouse.lake import Lake
from lakehouse.progress import ProgressReader
from lakehouse.shape import shape_of
from lakehouse.table import StreamTable


@dataclass(frozen=True)
class Standing:
    """What a stream's tables hold; all empty for a stream that never committed."""

    anchor: AnchorState | None = None
    progress: Mapping[Partition, int] = field(default_factory=dict)  # last applied offset, in each partition's epoch
    versions: Mapping[str, int] = field(default_factory=dict)  # table name -> version
    committed_at_ms: int | None = None  # when the anchor was last committed

    def epoch(self, topic: str) -> int:
        """Give the topic's epoch as last committed."""
        partitions = self.anchor.partitions if self.anchor else {}
        return max((state.epoch for (name, _), state in partitions.items() if name == topic), default=0)


def standing_of(lake: Lake, contract: Contract, pipeline: str) -> Standing:
    """Read where one stream's tables stand. Raises what lakehouse.errors says about tables that cannot be continued."""
    tables = [StreamTable(lake, kind, shape_of(kind, contract, {}), pipeline, {}) for kind in kinds_of(contract.tables)]
    versions = {table.name: table.version for table in tables if table.open()}
    anchor = tables[-1]
    state = anchor.state() if anchor.name in versions else None
    if state is None:
        return Standing(versions=versions)
    progress: dict[Partition, int] = {}
    for epoch in {partition.epoch for partition in state.partitions.values()}:
        epochs = {topic: epoch for topic, _ in state.partitions}
        own = [key for key, partition in state.partitions.items() if partition.epoch == epoch]
        progress |= ProgressReader(pipeline, epochs).read(anchor.delta, own)
    newest = anchor.delta.history(1)
    committed = int(newest[0]["timestamp"]) if newest and "timestamp" in newest[0] else None
    return Standing(state, progress, versions, committed)


def standings(lake: Lake, contracts: Sequence[Contract], pipeline: str) -> dict[str, Standing]:
    """Read where the tables of each stream stand, by stream."""
    return {contract.stream: standing_of(lake, contract, pipeline) for contract in contracts}

"""What a stream's tables have in common, and how those that a contract keeps are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import pyarrow as pa

from contracts.model import Contract, Over
from lakehouse.aggregates.following import FollowingTable
from lakehouse.aggregates.measured import MeasuredTable
from lakehouse.aggregates.table import LATE, AggregateTable, LateTable, StreamAggregates
from lakehouse.anchor import AnchorState
from lakehouse.kind import AppendKind, Batch, TableKind
from lakehouse.kinds import STATE, aggregate_kind
from lakehouse.lake import Lake
from lakehouse.lanes import Lane
from lakehouse.progress import Partition, Writer
from lakehouse.shape import shape_of
from lakehouse.state.table import StateTable, StreamState
from lakehouse.table import StreamTable

# Tables whose rows are found by an index.
INDEXED = (StateTable, MeasuredTable)


class AnyTable(Protocol):
    """One table of a stream at one snapshot."""

    @property
    def kind(self) -> TableKind: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> int: ...  # noqa: D102
    @property
    def table_id(self) -> str: ...  # noqa: D102
    def open(self) -> bool: ...  # noqa: D102
    def create(self) -> None: ...  # noqa: D102
    def verify(self) -> list[pa.Field]: ...  # noqa: D102
    def evolve(self) -> None: ...  # noqa: D102


class KeptTable(AnyTable, Protocol):
    """A table that is committed with the stream's progress: its progress, its state, and one commit at a time."""

    def progress(self, partitions: Iterable[Partition]) -> dict[Partition, int]: ...  # noqa: D102
    def lane_progress(self, partitions: Iterable[Partition], lane: Lane) -> dict[Partition, int]: ...  # noqa: D102
    def state(self) -> AnchorState | None: ...  # noqa: D102
    def committed_ms(self) -> int | None: ...  # noqa: D102
    def lacking(  # noqa: D102
        self, batch: Batch, cuts: Mapping[Partition, int], lasts: Mapping[Partition, int]
    ) -> Batch | None: ...
    def apply(  # noqa: D102
        self, batch: Batch, progress: Mapping[Partition, int], state: AnchorState
    ) -> None: ...
    def apply_progress(self, progress: Mapping[Partition, int], state: AnchorState) -> None: ...  # noqa: D102
    def commit_ids(self, ids: Mapping[str, int], state: AnchorState) -> None: ...  # noqa: D102


def followers_of(lake: Lake, contract: Contract, writer: Writer, pins: Mapping[str, str]) -> tuple[FollowingTable, ...]:
    """Give the tables of aggregates that follow a stream's current table."""
    return tuple(
        FollowingTable(lake, kind, shape_of(kind, contract, pins), writer, contract, aggregate)
        for aggregate in contract.aggregates
        if aggregate.over is Over.CURRENT
        for kind in [aggregate_kind(aggregate)]
    )


def tables_of(
    lake: Lake, contract: Contract, kinds: Iterable[TableKind], writer: Writer, pins: Mapping[str, str]
) -> tuple[KeptTable, ...]:
    """Give tables of a stream by kind, for one writer; those of the state, and of aggregates, know of each other."""
    state, aggregates = StreamState(contract, writer), StreamAggregates(contract)
    by_kind = {aggregate_kind(one).name: one for one in contract.aggregates}

    def table(kind: TableKind) -> KeptTable:
        shape = shape_of(kind, contract, pins)
        if kind in STATE:
            return StateTable(lake, kind, shape, state)
        if kind is LATE:
            return LateTable(lake, shape, writer, aggregates)
        if kind.name in by_kind:
            return AggregateTable(lake, kind, shape, writer, by_kind[kind.name], aggregates)
        assert isinstance(kind, AppendKind)
        return StreamTable(lake, kind, shape, writer)

    return tuple(table(kind) for kind in kinds)

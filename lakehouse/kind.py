"""What a table kind is: the shape of its table, and one verb that applies a batch to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable

from contracts.columns import WITHHELD_META
from contracts.model import Contract
from lakehouse.aggregates.lateness import Sorted
from lakehouse.anchor import Floor, Floors
from lakehouse.groups import Partition
from lakehouse.order import Begun


@dataclass(frozen=True)
class Batch:
    """What one commit applies: the accepted rows with their verdicts, and the rejected ones, after trimming."""

    rows: pa.Table  # contracts.columns.changes_schema; each partition's rows in offset order
    rejects: pa.Table  # contracts.columns.QUARANTINE
    withheld: pa.Table = field(default_factory=WITHHELD_META.empty_table)  # contracts.columns.withheld_schema
    highest: Mapping[Partition, tuple[int, int]] = field(default_factory=dict)  # each partition's position before
    begun: Begun = field(default_factory=dict)  # the initial snapshots before and in it
    floors: Floors = field(default_factory=dict)  # by topic, with those of this batch
    raised: Floors = field(default_factory=dict)  # by this batch
    swept: Mapping[str, Floor] = field(default_factory=dict)  # topic -> snapshot below which rows of current vanished
    afresh: bool = False  # what rows say of changes that wait is told anew: the batch holds all that still do
    watermark_ms: int | None = None  # of the stream, after it
    missed: pa.Table = field(default_factory=lambda: pa.table({}))  # rows of <stream>_late
    sorted: Mapping[str, Sequence[Sorted]] = field(default_factory=dict)  # table of an aggregate -> what it lacks

    def within(self, progress: Mapping[Partition, int]) -> Batch:
        """Give what lies at or below a progress."""
        return replace(self, rows=within(self.rows, progress), rejects=within(self.rejects, progress))

    def beyond(self, progress: Mapping[Partition, int], cuts: Mapping[Partition, int]) -> Batch:
        """Give what a table with its own progress still lacks; cuts say where the batch begins."""
        ahead = {p: offset for p, offset in progress.items() if offset > cuts.get(p, offset)}
        if not ahead:
            return self
        return replace(self, rows=_beyond(self.rows, ahead), rejects=_beyond(self.rejects, ahead))


# Applies a batch to the table by exactly one commit with the given properties, through the given DeltaTable object
# only. A batch that changes nothing is committed too: the properties carry the progress.
Apply = Callable[[DeltaTable, Batch, CommitProperties], None]


@dataclass(frozen=True)
class TableKind:
    """One kind of table: its name in contracts, what its name adds to the stream's, and its columns."""

    name: str
    suffix: str
    columns: Callable[[Contract], pa.Schema]
    folder: str = ""  # of tables that are not for readers
    partitioned: bool = True  # as the contract says, where it has the columns
    definition: str = ""  # what an aggregate's rows mean, as JSON

    def table_name(self, stream: str) -> str:
        """Give the name of a stream's table of this kind."""
        return f"{self.folder}{stream}{self.suffix}"


@dataclass(frozen=True)
class AppendKind(TableKind):
    """A kind of table to which each batch adds rows, and its verb."""

    concerns: Callable[[Batch], bool] = field(kw_only=True)  # whether the batch holds anything for the table
    apply: Apply = field(kw_only=True)


def within(rows: pa.Table, progress: Mapping[Partition, int]) -> pa.Table:
    """Keep the rows at or below a partition's progress. Used as _beyond is."""
    keep = pa.array(np.zeros(len(rows), np.bool_))
    for (topic, number), offset in progress.items():
        own = pc.and_(pc.equal(rows["_topic"], topic), pc.equal(rows["_partition"], number))
        keep = pc.or_(keep, pc.and_(own, pc.less_equal(rows["_offset"], offset)))
    return rows.filter(keep)


def _beyond(rows: pa.Table, ahead: Mapping[Partition, int]) -> pa.Table:
    """Drop the rows at or below a partition's progress."""
    topics, numbers = rows["_topic"], rows["_partition"]
    # A handful of partitions, after a crash between two tables' commits only: never the main path.
    for (topic, number), offset in ahead.items():
        own = pc.and_(pc.equal(topics, topic), pc.equal(numbers, number))
        keep = pc.invert(pc.and_(own, pc.less_equal(rows["_offset"], offset)))
        rows = rows.filter(keep)
        topics, numbers = rows["_topic"], rows["_partition"]
    return rows

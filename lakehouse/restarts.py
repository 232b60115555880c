"""Where a source's positions began again: at a new initial snapshot that stands below what its partition had brought.

A database that was restored or moved numbers its log anew, and its connector begins with a snapshot. That alone tells
it: streamed changes below others may have been sent again, rows of an incremental snapshot are read beside the log, and
a snapshot of a source that went on stands above what came before. Each partition is judged for itself, in offset order:
another one may be read ahead. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.anchor import AnchorState, PartitionState
from lakehouse.batches import Loaded
from lakehouse.errors import PositionsRestarted
from lakehouse.groups import NONE, Partition
from lakehouse.highest import COLUMNS, HighestBefore
from lakehouse.lives import Life, Restart, life_in

Position = tuple[int, int]  # major, minor
NOTHING = (NONE, NONE)
KAFKA_TIME = "_kafka_time"
_PLACE = ["_topic", "_partition", "_offset"]
_POSITION = ["_position_major", "_position_minor"]


@dataclass(frozen=True)
class Found:
    """The restarts in a batch, the position that each stands below, and the last offsets before them."""

    restarts: Mapping[Partition, Restart] = field(default_factory=dict)
    highest: Mapping[Partition, Position] = field(default_factory=dict)
    lasts: Mapping[Partition, int] = field(default_factory=dict)  # of all partitions of the batch
    lives: Mapping[str, Life] = field(default_factory=dict)  # of the topics, with their restarts

    def __bool__(self) -> bool:
        """Say whether there is any."""
        return bool(self.restarts)

    def problem(self, stream: str) -> PositionsRestarted:
        """Give the error that tells of the first one."""
        partition, restart = min(self.restarts.items())
        return PositionsRestarted(stream, partition, restart.offset, self.highest[partition], restart.position)


def restarts_in(loaded: Loaded, state: AnchorState, epochs: Mapping[str, int]) -> Found:
    """Give where positions begin again in a batch on top of a state. epochs: of the topics, in this run."""
    restarts: dict[Partition, Restart] = {}
    highest: dict[Partition, Position] = {}
    lives: dict[str, Life] = {}
    for partition, snapshots in _snapshots(loaded).items():
        topic, number = partition
        life, known = _known(state, partition, epochs.get(topic, 0))
        unknown = [one for one in snapshots if one.position not in (_read(known), *life.accepted)]
        judged = _judged(unknown, known, loaded.rows, partition) if unknown else ()
        for restart, below in ((one, below) for one, below in judged if one.position < below):
            restarts[partition], highest[partition] = restart, below
            life = lives.get(topic, life)
            lives[topic] = replace(life, restarts={**life.restarts, number: restart})
            break
    return Found(restarts, highest, _lasts(loaded, restarts), lives) if restarts else Found()


def _known(state: AnchorState, partition: Partition, epoch: int) -> tuple[Life, PartitionState]:
    """Give what is known of a topic's present epoch and of a partition in it; nothing where it begins."""
    life, known = life_in(state.lives.get(partition[0]), epoch), state.partitions.get(partition)
    return life, known if known is not None and known.epoch == epoch else PartitionState(epoch, 0)


def _snapshots(loaded: Loaded) -> dict[Partition, list[Restart]]:
    """Give the initial snapshots whose rows are in a batch, each with its first row, in offset order."""
    found = [
        _initial(part)
        for part in (loaded.rows, loaded.withheld)  # its first row may be another lane's, or wait in the quarantine
        if len(part) and part["_snapshot"].null_count < len(part)
    ]
    if not sum(map(len, found)):
        return {}
    rows = pa.concat_tables(found)
    first = rows.group_by(["_topic", "_partition", *_POSITION]).aggregate([("_offset", "min"), ("_at", "min")])
    made: dict[Partition, list[Restart]] = {}
    for row in first.sort_by("_offset_min").to_pylist():
        # PostgreSQL's has no major: it ranks by its LSN (lakehouse.order).
        major, minor = row["_position_major"], row["_position_minor"]
        place = (minor, 0) if major is None else (major, minor)
        at = None if row["_at_min"] is None else row["_at_min"] // 1000
        restart = Restart(row["_offset_min"], place[0], place[1], at)
        made.setdefault((row["_topic"], row["_partition"]), []).append(restart)
    return made


def _initial(rows: pa.Table) -> pa.Table:
    """Give the places, positions and Kafka times (us, null where not known) of the rows of initial snapshots."""
    words = pc.fill_null(pc.not_equal(rows["_snapshot"], "incremental"), False)
    own = rows.filter(pc.and_(pc.and_(words, pc.equal(rows["_op"], "r")), pc.is_valid(rows["_position_minor"])))
    known = KAFKA_TIME in own.column_names
    times = own[KAFKA_TIME].cast(pa.int64()) if known else pa.nulls(len(own), pa.int64())
    return own.select([*_PLACE, *_POSITION]).append_column("_at", times)


def _read(known: PartitionState) -> Position:
    """Give the position of the newest initial snapshot of a partition."""
    return NOTHING if known.snapshot is None else (known.snapshot, 0)


def _judged(
    snapshots: Sequence[Restart], known: PartitionState, rows: pa.Table, partition: Partition
) -> Iterator[tuple[Restart, Position]]:
    """Give snapshots, each with the highest position that its partition had brought before."""
    own = pc.and_(pc.equal(rows["_topic"], partition[0]), pc.equal(rows["_partition"], partition[1]))
    before = NOTHING if known.major is None or known.minor is None else (known.major, known.minor)
    streamed = HighestBefore(np.array([one.offset for one in snapshots], np.int64), before)
    streamed.take([rows.filter(own).select(COLUMNS)])
    read = _read(known)
    for snapshot, (major, minor) in zip(snapshots, streamed.below.tolist(), strict=False):
        yield snapshot, max((major, minor // 2), read)
        read = max(read, snapshot.position)


def _lasts(loaded: Loaded, restarts: Mapping[Partition, Restart]) -> dict[Partition, int]:
    """Give the last offset of each partition that is before the restarts.

    What Kafka got at the time of a topic's restart, or later, is after it in its other partitions too: between the last
    record of a source and the first of another lies more than the clocks differ.
    """
    lasts = dict(loaded.lasts)
    for partition, restart in restarts.items():
        lasts[partition] = restart.offset - 1
    for topic in {topic for topic, _ in restarts}:
        times = [one.kafka_ms for (name, _), one in restarts.items() if name == topic and one.kafka_ms is not None]
        if times:
            at = pa.scalar(min(times) * 1000, pa.int64()).cast(loaded.rows.schema.field(KAFKA_TIME).type)
            after = pc.and_(pc.equal(loaded.rows["_topic"], topic), pc.greater_equal(loaded.rows[KAFKA_TIME], at))
            later = loaded.rows.filter(after).group_by("_partition").aggregate([("_offset", "min")])
            for row in later.to_pylist():
                partition = topic, row["_partition"]
                lasts[partition] = min(lasts[partition], row["_offset_min"] - 1)
    return lasts

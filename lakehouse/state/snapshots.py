"""New snapshots of a source: rows that stand below one and are not in it vanished while the connector was down.

A snapshot is known by its position, which all tables that a connector reads in it share. It is over for a stream when
each topic that has brought rows of it has brought the last one, and no other topic can begin. Then the ends of all the
stream's partitions are asked for; once all of them are reached, nothing of the snapshot can still be under way, and
what stands below it is not in it: a row that moved to another topic would have come by that one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.columns import WITHHELD_META
from contracts.model import Contract, Vanished
from lakehouse.anchor import Floor, PartitionState
from lakehouse.groups import Ints, Partition
from lakehouse.kind import Batch
from lakehouse.order import EPOCH_SHIFT, HALVES, rank
from lakehouse.state.events import KEYLESS

COORDINATES = ["_topic", "_partition", "_offset"]
ASKED = [
    "_op", "_snapshot", "_position_major", "_position_minor", "_previous_key", "_source_time", "_event_time",
    *COORDINATES,
]  # fmt: skip
LAST, LAST_OF_TOPIC = "last", "last_in_data_collection"  # row of all that the connector reads; of a topic


class StreamState(Protocol):
    """Knows a stream's current table."""

    def lost(self, floors: Mapping[str, Floor], batch: Batch) -> tuple[dict[str, int], int]:
        """Give how many rows of current some complete snapshots (topic -> floor) do not hold, and of how many rows.

        batch: what is about to be committed; the rows that it brings are there.
        """


@dataclass(frozen=True)
class Snapshot:
    """How far one topic's newest snapshot has come."""

    major: int
    minor: int
    time: int | None  # us
    last_at: int | None = None  # ms: when the commit was made that holds its last row
    over_at: int | None = None  # ms: when the commit was made after which no topic can bring more of it
    ends: Mapping[str, int] | None = None  # topic/partition -> offset still to be reached; read after that commit
    keyless: bool = False  # a record was refused meanwhile that may be a row of it, and whose key nobody knows
    found: int | None = None  # rows that are not in it
    removed: int = 0

    @property
    def position(self) -> tuple[int, int]:
        """Give where it stands."""
        return self.major, self.minor

    @property
    def floor(self) -> Floor:
        """Give the position below which rows are not in the snapshot, and when it was taken (us)."""
        return self.major, self.minor, self.time

    def to_json(self) -> dict[str, Any]:
        """Give the snapshot as the anchor's state holds it."""
        return asdict(self)


def observed(
    contract: Contract, batch: Batch, known: Mapping[str, Mapping[str, Any]], epochs: Mapping[str, int], now_ms: int
) -> dict[str, Snapshot]:
    """Give the newest snapshot of each topic, with what a batch says of snapshots."""
    snapshots = {topic: Snapshot(**values) for topic, values in known.items()}
    if contract.state.vanished is Vanished.OFF:
        return snapshots
    rows = _read(batch)
    if len(rows):
        snapshots = _followed(snapshots, rows, rank(rows, epochs, batch.highest), now_ms)
    if _refused(contract, batch):
        return {t: replace(one, keyless=True) if one.found is None else one for t, one in snapshots.items()}
    return snapshots


def _followed(
    known: Mapping[str, Snapshot], rows: pa.Table, position: tuple[Ints, Ints], now_ms: int
) -> dict[str, Snapshot]:
    """Give the newest snapshot of each topic, with rows of snapshots that stand at positions."""
    snapshots = dict(known)
    major, minor = position
    times = pc.coalesce(rows["_source_time"], rows["_event_time"]).cast(pa.int64())
    for topic in pc.unique(rows["_topic"]).to_pylist():
        own = np.flatnonzero(pc.equal(rows["_topic"], topic).to_numpy())
        newest = int(own[np.lexsort((minor[own], major[own]))[-1]])
        found = Snapshot(int(major[newest]), int(minor[newest]), times[newest].as_py())
        if topic not in snapshots or found.position > snapshots[topic].position:
            snapshots[topic] = found
    lasts = _lasts(rows, major, minor)
    for topic, one in snapshots.items():
        if (None, one.position) in lasts and one.over_at is None:
            snapshots[topic] = replace(one, last_at=now_ms, over_at=now_ms, ends=None)
        elif (topic, one.position) in lasts and one.last_at is None:
            snapshots[topic] = replace(one, last_at=now_ms)
    return snapshots


def _read(batch: Batch) -> pa.Table:
    """Give the rows of snapshots, those withheld among them and those of incremental ones left out."""
    parts = [part.select(ASKED) for part in (batch.rows, batch.withheld) if len(part)]
    told = [part for part in parts if part["_snapshot"].null_count < len(part)]
    rows = pa.concat_tables(told) if told else WITHHELD_META.empty_table().select(ASKED)
    return rows.filter(
        pc.and_(pc.equal(rows["_op"], "r"), pc.fill_null(pc.not_equal(rows["_snapshot"], "incremental"), False))
    )


def _lasts(rows: pa.Table, major: Ints, minor: Ints) -> set[tuple[str | None, tuple[int, int]]]:
    """Give the topics, None for all, and positions of the snapshots whose last row is among these."""
    where = np.flatnonzero(pc.is_in(rows["_snapshot"], value_set=pa.array([LAST, LAST_OF_TOPIC])).to_numpy())
    told = rows.select(["_topic", "_snapshot"]).take(pa.array(where)).to_pylist()  # one a topic
    at = zip(major[where].tolist(), minor[where].tolist(), strict=True)
    return {(None if row["_snapshot"] == LAST else row["_topic"], place) for row, place in zip(told, at, strict=True)}


def _refused(contract: Contract, batch: Batch) -> bool:
    """Say whether a record was refused that may be a row of a snapshot, and whose key nobody knows."""
    if contract.state.lanes == 1:
        return len(keyless(batch.rejects, batch.withheld)) > 0
    return KEYLESS in pc.unique(batch.withheld["_kind"]).to_pylist()  # what a lane is told: its rejects are not all


def keyless(rejects: pa.Table, withheld: pa.Table) -> pa.Table:
    """Give the refused records that may be rows of a snapshot, and whose key the withheld changes do not say."""
    may = rejects.filter(pc.fill_null(pc.equal(rejects["_op"], "r"), True))
    if not len(may):
        return may
    return may.filter(pc.invert(pc.is_in(_places(may), value_set=_places(withheld).combine_chunks())))


def _places(rows: pa.Table) -> pa.ChunkedArray:
    columns = [rows[name].cast(pa.string()) for name in COORDINATES]
    return pc.binary_join_element_wise(*columns, "/")


def ended(
    contract: Contract,
    snapshots: Mapping[str, Snapshot],
    partitions: Mapping[Partition, PartitionState],
    now_ms: int,
) -> dict[str, Snapshot]:
    """Give the snapshots with when they were found to be over. partitions: what each has brought by now."""
    return {
        topic: replace(one, over_at=now_ms, ends=None) if _is_over(contract, snapshots, one, partitions) else one
        for topic, one in snapshots.items()
    }


def _is_over(
    contract: Contract,
    snapshots: Mapping[str, Snapshot],
    one: Snapshot,
    partitions: Mapping[Partition, PartitionState],
) -> bool:
    """Say whether no topic of the stream can bring more of a snapshot of which that was not said yet.

    A topic that has brought nothing of it is empty once the connector has read its last table, or streams again.
    """
    if one.over_at is not None or not _all_ended(snapshots, one):
        return False
    same = {topic: other for topic, other in snapshots.items() if other.position == one.position}
    every = contract.topic_pattern is None and same.keys() >= set(contract.topics)
    over = every or any(other.over_at is not None for other in same.values())
    return over or any(_above(state, one) for state in partitions.values())


def _all_ended(snapshots: Mapping[str, Snapshot], one: Snapshot) -> bool:
    """Say whether each topic that has brought rows of a snapshot has brought the last one."""
    return all(other.last_at is not None for other in snapshots.values() if other.position == one.position)


def _above(state: PartitionState, one: Snapshot) -> bool:
    """Say whether a partition has brought a change that was committed after a snapshot of the same epoch."""
    if state.major is None or state.minor is None or state.epoch != one.major >> EPOCH_SHIFT:
        return False
    return ((state.epoch << EPOCH_SHIFT) + state.major, state.minor // 2 * HALVES) > one.position


def bounded(
    snapshots: Mapping[str, Snapshot],
    before: Mapping[str, Mapping[str, Any]],
    ends: Mapping[Partition, int],
    asked_ms: int,
) -> dict[str, Snapshot]:
    """Give the snapshots with the ends to be reached, where those were asked after the commit that showed it over.

    before: what the committed state says; ends: of all the stream's partitions, asked of Kafka at asked_ms.
    """
    made = dict(snapshots)
    every = {_name(place): end for place, end in ends.items()}
    for topic, one in snapshots.items():
        held = before.get(topic)
        committed = one.over_at is not None and held is not None and held.get("over_at") == one.over_at
        if one.ends is None and committed and asked_ms > (one.over_at or 0) and any(name == topic for name, _ in ends):
            made[topic] = replace(one, ends=every)
    return made


def settled(
    contract: Contract,
    snapshots: Mapping[str, Snapshot],
    below: Callable[[Mapping[Partition, int]], Collection[Partition]],
    batch: Batch,
    state: StreamState,
) -> tuple[dict[str, Snapshot], dict[str, Floor]]:
    """Compare current with the snapshots that are complete; gives them, and those whose rows are to be removed now.

    below: gives the partitions with records that are not committed below some ends. Rows are removed when the contract
    says so, they are not too large a share of the table, and it is known of each row of the snapshot which it is.
    """
    made, swept = dict(snapshots), {}
    complete: dict[str, Floor] = {}
    for topic, one in _awaited(snapshots, below).items():
        made[topic] = one
        if not one.ends and _all_ended(snapshots, one):
            complete[topic] = one.floor
    lost, rows = state.lost(complete, batch) if complete else ({}, 0)
    for topic, found in lost.items():
        unsure = any(other.keyless for other in snapshots.values() if other.position == made[topic].position)
        wanted = contract.state.vanished is Vanished.DELETE and found <= contract.state.vanished_share * rows
        wanted &= not unsure
        made[topic] = replace(made[topic], keyless=unsure, found=found, removed=found if wanted else 0)
        if wanted and found:
            swept[topic] = complete[topic]
    return made, swept


def _awaited(
    snapshots: Mapping[str, Snapshot], below: Callable[[Mapping[Partition, int]], Collection[Partition]]
) -> dict[str, Snapshot]:
    """Give the snapshots that are not compared yet, each with the ends that are still to be reached."""
    ends = {
        topic: {_partition(name): end for name, end in one.ends.items()}
        for topic, one in snapshots.items()
        if one.over_at is not None and one.ends is not None and one.found is None
    }
    highest: dict[Partition, int] = {}
    for own in ends.values():
        highest |= {place: max(end, highest.get(place, end)) for place, end in own.items()}
    left = set(below(highest)) if highest else set()
    return {
        topic: replace(snapshots[topic], ends={_name(place): end for place, end in own.items() if place in left})
        for topic, own in ends.items()
    }


def _name(place: Partition) -> str:
    return f"{place[0]}/{place[1]}"


def _partition(name: str) -> Partition:
    topic, _, number = name.rpartition("/")
    return topic, int(number)

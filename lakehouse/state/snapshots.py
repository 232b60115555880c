"""New snapshots of a source: rows that stand below one and are not in it vanished while the connector was down.

A snapshot is known by its position. Once its last row is committed, the ends of the topic's partitions are asked for;
once all of them are reached, nothing of the snapshot can still be under way, and what stands below it is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.model import Contract, Vanished
from lakehouse.anchor import Floor
from lakehouse.groups import Ints, Partition
from lakehouse.kind import Batch
from lakehouse.merge.indexed import FLAGS, REMEMBERS, IndexedTable
from lakehouse.merge.keys import concat_keys, keys_of
from lakehouse.order import rank
from lakehouse.state.columns import key_names
from lakehouse.state.events import DEAD, Events
from lakehouse.state.floors import locations_below
from lakehouse.state.memo import read_memo


class StreamState(Protocol):
    """Knows a stream's current table."""

    def lost(self, topic: str, floor: Floor) -> tuple[int, int]:
        """Give how many rows of current a complete snapshot does not hold, and of how many rows."""


LAST = pa.array(["last", "last_in_data_collection"])


@dataclass(frozen=True)
class Snapshot:
    """How far one topic's newest snapshot has come."""

    major: int
    minor: int
    time: int | None  # us
    last_at: int | None = None  # ms: when the commit was made that holds its last row
    ends: Mapping[str, int] | None = None  # partition -> offset that must be reached; read after that commit
    found: int | None = None  # rows that are not in it
    removed: int = 0

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
    column = batch.rows["_snapshot"] if len(batch.rows) else pa.chunked_array([pa.array([], pa.string())])
    if contract.state.vanished is Vanished.OFF or column.null_count == len(column):
        return snapshots
    read = pc.and_(pc.equal(batch.rows["_op"], "r"), pc.fill_null(pc.not_equal(column, "incremental"), False))
    rows = batch.rows.filter(read)
    if not len(rows):
        return snapshots
    major, minor = rank(rows, epochs, batch.highest)
    times = pc.coalesce(rows["_source_time"], rows["_event_time"]).cast(pa.int64())
    ended = pc.is_in(rows["_snapshot"], value_set=LAST).to_numpy()
    for topic in pc.unique(rows["_topic"]).to_pylist():
        mine = pc.equal(rows["_topic"], topic).to_numpy()
        newest = int(np.flatnonzero(mine)[np.lexsort((minor[mine], major[mine]))[-1]])
        position = int(major[newest]), int(minor[newest])
        before = snapshots.get(topic)
        if before is None or position > (before.major, before.minor):
            before = Snapshot(*position, times[newest].as_py())
        if (ended & mine & (major == position[0]) & (minor == position[1])).any():
            before = replace(before, last_at=now_ms)
        snapshots[topic] = before
    return snapshots


def bounded(
    snapshots: Mapping[str, Snapshot],
    before: Mapping[str, Mapping[str, Any]],
    ends: Mapping[Partition, int],
    asked_ms: int,
) -> dict[str, Snapshot]:
    """Give the snapshots with the ends that partitions must reach, where those were asked after the last row's commit.

    before: what the committed state says; ends: of Kafka, asked at asked_ms.
    """
    made = dict(snapshots)
    for topic, one in snapshots.items():
        held = before.get(topic)
        committed = held is not None and held["last_at"] == one.last_at and one.last_at is not None
        if one.ends is None and committed and asked_ms > (one.last_at or 0):
            own = {str(number): end for (name, number), end in ends.items() if name == topic}
            made[topic] = replace(one, ends=own) if own else one
    return made


def complete(snapshot: Snapshot, topic: str, progress: Mapping[Partition, int]) -> bool:
    """Say whether nothing of a snapshot can still be under way, and it has not been compared yet."""
    if snapshot.ends is None or snapshot.found is not None:
        return False
    return all(progress.get((topic, int(number)), -1) + 1 >= end for number, end in snapshot.ends.items())


def vanished(table: IndexedTable, topic: str, floor: Floor) -> Ints:
    """Give where the rows of current lie that a complete snapshot (its floor) does not hold; asks every entry.

    A row of which the snapshot's own waits in quarantine, or a newer change, is there.
    """
    found = locations_below(table, topic, floor)
    waiting = found[(found & REMEMBERS) != 0]
    if len(waiting):
        major, minor = read_memo(table.rows(waiting, ["_memo"])["_memo"]).stale
        there = (major > floor[0]) | ((major == floor[0]) & (minor >= floor[1]))
        found = np.setdiff1d(found, waiting[there])
    locations: Ints = found & ~FLAGS
    if "_deleted" in table.table.shape.columns.names:
        kept = table.rows(locations, ["_deleted"])["_deleted"]
        locations = locations[~kept.to_numpy()]
    return locations


def ending(table: IndexedTable, contract: Contract, locations: Ints, floor: Floor, events: Events) -> Events:
    """Give the events with the end of the rows at locations, at the position of the snapshot that lacks them."""
    keys = key_names(contract)
    held = table.rows(locations, [*keys, "_topic"])
    count = len(held)
    time = pa.scalar(floor[2], pa.int64()).cast(events.rows.schema.field("_source_time").type)
    told = {
        **{name: held[name] for name in (*keys, "_topic")},
        "_op": pa.repeat("d", count),
        "_source_time": pa.repeat(time, count),
        "_event_time": pa.repeat(time, count),
    }
    columns = [told.get(f.name, pa.nulls(count, f.type)) for f in events.rows.schema]
    rows = pa.Table.from_arrays(columns, schema=events.rows.schema)
    return Events(
        pa.concat_tables([events.rows, rows]),
        concat_keys([events.keys, keys_of([held[name] for name in keys])]),
        np.concatenate([events.major, np.full(count, floor[0])]),
        np.concatenate([events.minor, np.full(count, floor[1])]),
        np.concatenate([events.what, np.full(count, DEAD, np.int8)]),
        np.concatenate([events.weak, np.zeros(count, np.bool_)]),
        {name: np.concatenate([marks, np.zeros(count, np.bool_)]) for name, marks in events.unset.items()},
    )


def settled(
    contract: Contract, snapshots: Mapping[str, Snapshot], progress: Mapping[Partition, int], state: StreamState
) -> tuple[dict[str, Snapshot], dict[str, Floor]]:
    """Compare current with the snapshots that are complete; gives them, and those whose rows are to be removed now.

    Rows are removed when the contract says so and they are not too large a share of the table.
    """
    made, swept = dict(snapshots), {}
    for topic, one in snapshots.items():
        if complete(one, topic, progress):
            found, rows = state.lost(topic, one.floor)
            wanted = contract.state.vanished is Vanished.DELETE and found <= contract.state.vanished_share * rows
            made[topic] = replace(one, found=found, removed=found if wanted else 0)
            if wanted and found:
                swept[topic] = one.floor
    return made, swept

"""How two changes of one key compare: by where they stand in their source, never by when they arrived. Pure.

A change's rank is a pair of int64 that compares as a pair:

    (epoch of the topic << 56 | major, minor * 4 + half)

- major and minor are what refine read from the source (udfs/position.py, one implementation per database). PostgreSQL:
  LSN of the last commit, LSN of the change. Transactions are sent in commit order, so that the pair rises with the
  truth even where the LSN alone does not (a change written early and committed late).
- half is 1 for the create of a key change, which shares its position with the delete of the old key, and 2 for a row of
  an incremental snapshot, which says what the row was after the newest change before it.
- A row of an initial snapshot has no major: it ranks before every change that was committed after the snapshot,
  as (its LSN, 0). A streamed change without a major (the first transaction of a connector) has its own LSN as major,
  or that of the snapshot before it: it may have been written before the snapshot was taken, and committed after.
- A row without any position takes the highest one that its partition brought before.
- The end of a row that a snapshot does not hold stands just below the snapshot's rows: one less in the second number,
  with half 3, which nothing else has. A row of that snapshot that comes after it wins, and shows that it was no end.
- The epoch counts the lives of a topic, and of the source in it: the next one begins with a topic made again, or where
  an operator said that the positions of the source began again in the same topic (lakehouse/epochs.py). It ranks above
  all of the epochs before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.groups import NONE, Flags, Ints, Partition, group_rows, int64s

EPOCH_SHIFT = 56
HALVES = 4
KEY_CHANGE, BESIDE_THE_LOG, SWEPT = 1, 2, 3
LOWEST = -(1 << 62)  # below every rank

# Partition -> the offset at which an initial snapshot's rows begin, and the snapshot's LSN; for each of its snapshots.
Begun = Mapping[Partition, Sequence[tuple[int, int]]]
NOTHING_BEGUN: Begun = {}


def rank(
    rows: pa.Table,
    epochs: Mapping[str, int],
    highest: Mapping[Partition, tuple[int, int]],
    begun: Begun = NOTHING_BEGUN,
) -> tuple[Ints, Ints]:
    """Give the ranks of rows that have positions, _snapshot, _previous_key and Kafka coordinates.

    highest: each partition's highest position (major, minor as the source says) before these rows; begun: the snapshots
    before and among them.
    """
    major, minor = int64s(rows["_position_major"]).copy(), int64s(rows["_position_minor"])
    snapshot = rows["_snapshot"]
    beside = _beside_the_log(snapshot)
    read = np.zeros(len(rows), np.bool_) if snapshot.null_count == len(rows) else _held(snapshot) & ~beside
    first = (major == NONE) & (minor != NONE) & ~read & ~beside
    if begun and first.any():
        major[first] = np.maximum(minor[first], _snapshot_before(rows.filter(pa.array(first)), begun))
    major, minor = _completed(rows, major, minor, highest)
    initial = read & (major == NONE)
    half = np.where(_held(rows["_previous_key"]), KEY_CHANGE, 0) + np.where(beside, BESIDE_THE_LOG, 0)
    ranked = np.where(initial, 0, minor * HALVES + half)
    major = np.where(major == NONE, minor, major)
    return major + _epochs(rows, epochs), ranked


def stands_above(position: Ints, other: Ints) -> Flags:
    """Mark the ranks (n x 2) that stand above others."""
    same = position[:, 0] == other[:, 0]
    marks: Flags = (position[:, 0] > other[:, 0]) | (same & (position[:, 1] > other[:, 1]))
    return marks


def is_swept(minor: Ints) -> Flags:
    """Mark the second numbers that only ends of rows have which a snapshot does not hold: its rows' less one."""
    marks: Flags = minor % HALVES == SWEPT
    return marks


def begun_in(rows: pa.Table) -> dict[Partition, list[tuple[int, int]]]:
    """Give the initial snapshots of which rows are among these, by partition."""
    snapshot = rows["_snapshot"]
    if snapshot.null_count == len(snapshot):
        return {}
    read = pc.and_(pc.is_null(rows["_position_major"]), pc.fill_null(pc.not_equal(snapshot, "incremental"), False))
    by = ["_topic", "_partition", "_position_minor"]
    found = rows.filter(read).select([*by, "_offset"]).group_by(by).aggregate([("_offset", "min")])
    begun: dict[Partition, list[tuple[int, int]]] = {}
    for row in found.filter(pc.is_valid(found["_position_minor"])).to_pylist():
        begun.setdefault((row["_topic"], row["_partition"]), []).append((row["_offset_min"], row["_position_minor"]))
    return begun


def _snapshot_before(rows: pa.Table, begun: Begun) -> Ints:
    """Give per row the LSN of the newest snapshot before it in its partition, else NONE. For few rows."""
    places = zip(*(rows[name].to_pylist() for name in ("_topic", "_partition", "_offset")), strict=True)
    return np.array(
        [max((lsn for at, lsn in begun.get((t, p), ()) if at < offset), default=NONE) for t, p, offset in places],
        np.int64,
    )


def _completed(
    rows: pa.Table, major: Ints, minor: Ints, highest: Mapping[Partition, tuple[int, int]]
) -> tuple[Ints, Ints]:
    """Give rows without any position the highest one their partition has brought so far."""
    missing = minor == NONE
    if not missing.any():
        return major, minor
    topics = tuple(str(topic) for topic in pc.unique(rows["_topic"]).to_pylist())
    groups = group_rows(rows, topics)
    majors, minors, lacks = groups.ordered(major), groups.ordered(minor), groups.ordered(missing)
    majors, minors = np.where(majors == NONE, minors, majors), minors.copy()
    for partition, own in groups:
        before = highest.get(partition, (0, 0))
        held = np.concatenate(([before], np.stack([majors[own], minors[own]], axis=1)))
        order = np.lexsort((held[:, 1], held[:, 0]))
        ranks = np.empty(len(held), np.int64)
        ranks[order] = np.arange(len(held))
        filled = held[order][np.maximum.accumulate(ranks)[:-1]]
        majors[own] = np.where(lacks[own], filled[:, 0], majors[own])
        minors[own] = np.where(lacks[own], filled[:, 1], minors[own])
    completed = groups.scattered(majors), groups.scattered(minors)
    return np.where(missing, completed[0], major), np.where(missing, completed[1], minor)


def _epochs(rows: pa.Table, epochs: Mapping[str, int]) -> Ints | np.int64:
    if "_epoch" in rows.column_names:
        own: Ints = pc.fill_null(rows["_epoch"], 0).to_numpy().astype(np.int64) << EPOCH_SHIFT
        return own
    if not any(epochs.values()):
        return np.int64(0)
    topics = pa.array(sorted(epochs), pa.string())
    values = np.array([epochs[topic] for topic in sorted(epochs)] + [0], np.int64)
    which = pc.fill_null(pc.index_in(rows["_topic"], value_set=topics), len(topics)).to_numpy()
    lifted: Ints = values[which] << EPOCH_SHIFT
    return lifted


def _beside_the_log(snapshot: pa.ChunkedArray) -> Flags:
    if snapshot.null_count == len(snapshot):
        return np.zeros(len(snapshot), np.bool_)
    marks: Flags = pc.fill_null(pc.equal(snapshot, "incremental"), False).to_numpy()
    return marks


def _held(column: pa.ChunkedArray) -> Flags:
    if column.null_count == len(column):
        return np.zeros(len(column), np.bool_)
    marks: Flags = pc.is_valid(column).to_numpy()
    return marks

"""The columns that only commit can fill: late, resent, epoch; judged from the anchor's state. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.columns import COMMITTED_META
from contracts.model import Contract
from lakehouse.anchor import AnchorState, PartitionState
from lakehouse.batches import Loaded, counts_of
from lakehouse.groups import NONE, Flags, Groups, Ints, Partition, group_rows, int64s
from lakehouse.kind import Batch
from lakehouse.order import Begun, begun_in
from lakehouse.resent import compose_minor, judge_resent
from lakehouse.state.events import BEGUN
from lakehouse.watermark import Lateness, Seen, judge_lateness


@dataclass(frozen=True)
class Judged:
    """A batch with its verdicts, and the state after it."""

    batch: Batch
    counts: Counter[str]
    watermark_ms: int | None
    partitions: Mapping[Partition, PartitionState]
    awaited: Mapping[Partition, int]


def judge(  # noqa: PLR0917 (what a verdict depends on)
    contract: Contract,
    loaded: Loaded,
    state: AnchorState,
    epochs: Mapping[str, int],
    now_ms: int,
    waiting: Iterable[Partition] = (),
) -> Judged:
    """Judge a chunk's rows in offset order against the state before it. waiting: partitions with unread records."""
    before = _begun(loaded, state, epochs)
    groups = group_rows(loaded.rows, loaded.topics)
    awaited = {**state.awaited, **dict.fromkeys(waiting, now_ms)}
    seen = _seen(before, state.watermark_ms, awaited)
    lateness = _lateness(contract, loaded.rows, groups, seen, now_ms)
    resent, positions = _resent(loaded.rows, groups, before)
    counts = counts_of(loaded)
    counts["late"], counts["resent"] = int(lateness.late.sum()), int(resent.sum())
    columns = [
        pa.array(groups.scattered(lateness.late)),
        pa.array(groups.scattered(lateness.lateness_ms)),
        pa.array(groups.scattered(resent)),
        epoch_column(loaded.rows, loaded.topics, epochs),
    ]
    rows = loaded.rows
    for field, column in zip(COMMITTED_META, columns, strict=True):
        rows = rows.append_column(field, pa.chunked_array([column], field.type))
    begun = _snapshots(before, _begun_in(loaded))
    after = _after(before, lateness.seen, positions, begun)
    highest = {p: (s.major, s.minor // 2) for p, s in before.items() if s.major is not None and s.minor is not None}
    watermark = lateness.seen.watermark
    rejects = loaded.rejects.append_column("_epoch", epoch_column(loaded.rejects, loaded.topics, epochs))
    batch = Batch(rows, rejects, loaded.withheld, highest, begun, watermark_ms=watermark)
    left = {p: since for p, since in awaited.items() if lateness.seen.highest.get(p, NONE) == NONE}
    return Judged(batch, counts, watermark, after, left)


def _begun(loaded: Loaded, state: AnchorState, epochs: Mapping[str, int]) -> dict[Partition, PartitionState]:
    """Give the partitions' states, with those that begin here, or begin again in a new epoch."""
    partitions = dict(state.partitions)
    for partition, first in loaded.firsts.items():
        epoch = epochs.get(partition[0], 0)
        if partition not in partitions or partitions[partition].epoch != epoch:
            partitions[partition] = PartitionState(epoch, first)
    return partitions


def _begun_in(loaded: Loaded) -> Begun:
    """Give the initial snapshots that begin in a chunk, also where their first rows are of another lane."""
    begun = begun_in(loaded.rows)
    if len(loaded.withheld):
        told = loaded.withheld.filter(pc.equal(loaded.withheld["_kind"], BEGUN))
        for partition, own in (begun_in(told) if len(told) else {}).items():
            begun[partition] = [*begun.get(partition, ()), *own]
    return begun


def _snapshots(partitions: Mapping[Partition, PartitionState], new: Begun) -> Begun:
    """Give the initial snapshots of partitions: the newest before the batch, and those in it."""
    before = {p: [(s.begins - 1, s.snapshot)] for p, s in partitions.items() if s.snapshot is not None}
    return {p: [*before.get(p, ()), *new.get(p, ())] for p in before.keys() | new.keys()}


def _seen(
    partitions: Mapping[Partition, PartitionState], watermark_ms: int | None, awaited: Mapping[Partition, int]
) -> Seen:
    highest = {p: s.event_time for p, s in partitions.items() if s.event_time is not None}
    active = {p: s.active for p, s in partitions.items() if s.active is not None}
    return Seen(
        watermark_ms,
        {**dict.fromkeys(awaited, NONE), **highest},
        {**active, **{p: max(since, active.get(p, since)) for p, since in awaited.items()}},
    )


def _lateness(
    contract: Contract,
    rows: pa.Table,
    groups: Groups,
    seen: Seen,
    now_ms: int,
) -> Lateness:
    times = groups.ordered(_milliseconds(rows["_event_time"]))
    caps = groups.ordered(_milliseconds(rows["_ingested_at"])) + contract.event_time.max_future_skew_ms
    return judge_lateness(times, caps, groups, seen, rule=contract.event_time, now_ms=now_ms)


def _milliseconds(column: pa.ChunkedArray) -> Ints:
    micros = int64s(column.cast(pa.int64()))
    return np.where(micros == NONE, NONE, micros // 1000) if column.null_count else micros // 1000


def _resent(
    rows: pa.Table, groups: Groups, partitions: Mapping[Partition, PartitionState]
) -> tuple[Flags, Mapping[Partition, tuple[int, int]]]:
    highest = {p: (s.major, s.minor) for p, s in partitions.items() if s.major is not None and s.minor is not None}
    major = rows["_position_major"]
    if major.null_count == len(rows):
        return np.zeros(len(rows), np.bool_), highest
    minor = compose_minor(int64s(rows["_position_minor"]), _flags(pc.is_valid(rows["_previous_key"])))
    judged = _flags(pc.is_valid(major))  # rows of an initial snapshot share one position, and no major
    if rows["_snapshot"].null_count < len(rows):  # rows of an incremental snapshot are read beside the log
        judged &= ~_flags(pc.fill_null(pc.equal(rows["_snapshot"], "incremental"), False))
    ordered = groups.ordered(int64s(major)), groups.ordered(minor), groups.ordered(judged)
    return judge_resent(*ordered, groups, highest)


def _flags(column: pa.ChunkedArray) -> Flags:
    flags: Flags = column.to_numpy()
    return flags


def epoch_column(rows: pa.Table, topics: Sequence[str], epochs: Mapping[str, int]) -> pa.Array:
    """Give the epoch of each row's topic; topics names every topic that may occur."""
    values = [epochs.get(topic, 0) for topic in topics]
    if len(set(values)) < 2:
        return pa.array(np.full(len(rows), values[0] if values else 0, np.int32))
    which = pc.index_in(rows["_topic"], value_set=pa.array(topics)).combine_chunks()
    return pa.array(values, pa.int32()).take(which)


def _after(
    before: Mapping[Partition, PartitionState],
    seen: Seen,
    positions: Mapping[Partition, tuple[int, int]],
    begun: Begun,
) -> dict[Partition, PartitionState]:
    def known(value: int) -> int | None:
        return None if value == NONE else value

    after = {}
    for partition, state in before.items():
        major, minor = positions.get(partition, (NONE, NONE))
        after[partition] = PartitionState(
            state.epoch,
            state.begins,
            known(seen.highest.get(partition, NONE)),
            known(major),
            known(minor),
            seen.active.get(partition),
            state.end,
            max((lsn for _, lsn in begun.get(partition, ())), default=None),
        )
    return after

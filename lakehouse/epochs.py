"""Begin epochs in topics that stay the same, and keep what was decided about them: each is one commit of the anchor.

From the first offset of an epoch on, a topic's records rank above all that is stored. Progress goes on where it is,
under application ids of the new epoch: the anchor's commit has them, the other tables get them as they are written.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.model import Contract
from lakehouse.anchor import AnchorState
from lakehouse.errors import CommitContested, NotBegun
from lakehouse.groups import int64s
from lakehouse.kinds import kinds_of
from lakehouse.lake import Lake
from lakehouse.lanes import lanes
from lakehouse.lives import Life
from lakehouse.progress import Partition, Writer, app_id
from lakehouse.standing import stream_progress
from lakehouse.table import Contested
from lakehouse.tables import KeptTable, tables_of

ATTEMPTS = 20
# Gives the state that is to be committed, and progress (offsets by application id) beside it; None: nothing to do.
Told = Callable[[KeptTable, AnchorState], tuple[AnchorState, Mapping[str, int]] | None]


@dataclass(frozen=True)
class Step:
    """What is read of topics in one of their epochs."""

    spans: Mapping[Partition, tuple[int, int]]
    epochs: Mapping[str, int]
    begins: Mapping[str, Mapping[int, int]]  # topic -> first offset of each partition; of the epochs that begin with it


def begin_epoch(
    lake: Lake, contract: Contract, pipeline: str, topic: str, firsts: Mapping[int, int] | None = None
) -> Life:
    """Let a stream's next epoch of a topic begin behind what is committed; give the topic's life with it.

    firsts: the first offset of each partition (number), where not that behind the progress of the slowest lane. No
    committer of the stream may run, and none of its tables be ahead of the anchor. Raises NotBegun for a stream without
    tables, CommitContested when others won every attempt.
    """
    begun: list[Life] = []

    def told(anchor: KeptTable, state: AnchorState) -> tuple[AnchorState, Mapping[str, int]]:
        life = state.life(topic)
        own = [p for p, known in state.partitions.items() if p[0] == topic and known.epoch == life.epoch]
        ids: dict[str, int] = {}
        for lane in lanes(state.lanes):
            for partition, offset in anchor.lane_progress(own, lane).items():
                # The old id once more: a commit of the old epoch that is still under way conflicts with it.
                for epoch in (life.epoch, life.epoch + 1):
                    ids[app_id(pipeline, *partition, epoch, lane)] = offset
        reached = stream_progress(anchor, state)
        begun.append(life.next(firsts or {partition[1]: reached[partition] + 1 for partition in own}))
        return _with_life(_renewed(state, topic, life.epoch), topic, begun[-1]), ids

    _tell(lake, contract, pipeline, told)
    return begun[-1]


def forget_asked(lake: Lake, contract: Contract, pipeline: str, topic: str) -> None:
    """Say that a start asks for no epoch of a topic: the next one that does begins one. Raises as begin_epoch."""

    def told(_: KeptTable, state: AnchorState) -> tuple[AnchorState, Mapping[str, int]] | None:
        life = state.life(topic)
        return (_with_life(state, topic, replace(life, asked=False)), {}) if life.asked else None

    _tell(lake, contract, pipeline, told)


def accept_restarts(lake: Lake, contract: Contract, pipeline: str) -> None:
    """Say that the positions of snapshots at which a stream stopped are right as they are. Raises as begin_epoch."""

    def told(_: KeptTable, state: AnchorState) -> tuple[AnchorState, Mapping[str, int]] | None:
        lives = {topic: state.life(topic) for topic in state.lives}
        accepted = {topic: life.accepting() for topic, life in lives.items() if life.pending}
        return (replace(state, lives={**state.lives, **accepted}), {}) if accepted else None

    _tell(lake, contract, pipeline, told)


def by_epoch(records: pa.Table, state: AnchorState) -> Iterator[tuple[dict[str, int], pa.Table]]:
    """Give records that a stream has read (topic, partition, offset, ...) by epoch, with the epochs of their topics."""
    topics = pc.unique(records["topic"]).to_pylist()
    numbers, offsets = int64s(records["partition"].cast(pa.int64())), int64s(records["offset"])
    epochs = np.zeros(len(records), np.int64)
    for topic in topics:
        own = pc.equal(records["topic"], topic).to_numpy()
        epochs[own] = state.life(topic).epochs_at(numbers[own], offsets[own])
    for epoch in np.unique(epochs).tolist():
        yield dict.fromkeys(topics, epoch), records.filter(pa.array(epochs == epoch))


def steps_of(spans: Mapping[Partition, tuple[int, int]], lives: Mapping[str, Life]) -> Iterator[Step]:
    """Give spans of offsets (first and last) in the steps in which tables are filled by them, epoch by epoch."""
    for number in range(max((len(life.begins) for life in lives.values()), default=0) + 1):
        own = {}
        for (topic, partition), (first, last) in spans.items():
            begins = lives[topic].begins
            low = begins[number - 1].get(partition, 0) if 0 < number <= len(begins) else 0
            high = begins[number].get(partition, 0) - 1 if number < len(begins) else last
            if number <= len(begins) and max(first, low) <= min(last, high):
                own[topic, partition] = max(first, low), min(last, high)
        epochs = {topic: life.start + min(number, len(life.begins)) for topic, life in lives.items()}
        yield Step(
            own, epochs, {t: life.begins[number - 1] for t, life in lives.items() if 0 < number <= len(life.begins)}
        )


def _renewed(state: AnchorState, topic: str, epoch: int) -> AnchorState:
    """Give a state in which a topic's partitions are at the next epoch: positions begin again, all else goes on."""
    partitions = {
        p: replace(known, epoch=epoch + 1, major=None, minor=None, snapshot=None)
        if p[0] == topic and known.epoch == epoch
        else known
        for p, known in state.partitions.items()
    }
    parts = {number: _renewed(part, topic, epoch) for number, part in state.parts.items()}
    return replace(state, partitions=partitions, parts=parts)


def _with_life(state: AnchorState, topic: str, life: Life) -> AnchorState:
    return replace(state, lives={**state.lives, topic: life})


def _tell(lake: Lake, contract: Contract, pipeline: str, told: Told) -> None:
    """Commit what is told on top of the newest state of a stream's anchor."""
    for _ in range(ATTEMPTS):
        epochs: dict[str, int] = {}
        *_others, anchor = tables_of(lake, contract, kinds_of(contract), Writer(pipeline, epochs), {})
        state = anchor.state() if anchor.open() else None
        if state is None:
            raise NotBegun(f"stream {contract.stream} has committed nothing yet: there is no epoch to go on from.")
        epochs.update(state.epochs())
        made = told(anchor, state)
        if made is None:
            return
        try:
            anchor.commit_ids(made[1], replace(made[0], commit=uuid.uuid4().hex, last_counts={}, ranges=()))
            return
        except Contested:
            continue
    raise CommitContested(f"stream {contract.stream}: others won every attempt. Is a job running?")

"""New epochs of topics that stay the same, before their job starts: what is left of the old source is committed first.

Where positions were seen to begin again in one partition, the others may not have been read as far: they are read on in
the old epoch, up to where theirs begin again, or to what Kafka got before that time. Where nothing was seen, what the
tables hold is all there is of the old source, once they are level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from contracts.model import Contract, Start
from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import offsets_at
from jobs.lanes import Levelling, with_lanes
from jobs.start import Partition, StartPlan
from lakehouse.epochs import begin_epoch
from lakehouse.lake import Lake
from lakehouse.lives import Life
from lakehouse.relaning import Levels, levels_now
from lakehouse.standing import standing_of
from udfs.keys import KeyRing

Say = Callable[[str], None]


def begin_epochs(  # noqa: PLR0917 (what a start knows)
    contracts: Sequence[Contract],
    plan: StartPlan,
    lake: Lake,
    pipeline: str,
    kafka: KafkaClient,
    keys: KeyRing,
    say: Say,
) -> None:
    """Begin the epochs that a start asks for; no job may run. say: told what is done.

    Raises RunRefused for a stream that is parked meanwhile, KafkaProblem, and what lakehouse.errors says.
    """
    by_name = {contract.stream: contract for contract in contracts}
    for stream, topic in plan.begin:
        contract = by_name[stream]
        _finish_old(contract, topic, plan, lake, pipeline, kafka, keys)
        life = begin_epoch(lake, contract, pipeline, topic)
        firsts = ", ".join(f"{number}: {first}" for number, first in sorted(life.begins[-1].items()))
        say(f"{stream}: epoch {life.epoch} of topic {topic} begins (partition: first offset) {firsts}")


def _finish_old(  # noqa: PLR0917 (what a start knows)
    contract: Contract, topic: str, plan: StartPlan, lake: Lake, pipeline: str, kafka: KafkaClient, keys: KeyRing
) -> None:
    """Commit what is left of the old source in a topic, each partition for itself: a restart ends its reading."""
    standing, levels = standing_of(lake, contract, pipeline), levels_now(lake, contract, pipeline)
    if standing.anchor is None or levels is None:
        return
    slowest = {p: offset for p, offset in levels.slowest.items() if p[0] == topic}
    furthest = {p: levels.furthest[p] for p in slowest}
    ends = _ends(standing.anchor.life(topic), topic, plan, kafka)
    if contract.start is Start.EARLIEST:  # a partition that nothing was committed of is read from where the start would
        slowest = {**{p: plan.offsets[p] - 1 for p in ends}, **slowest}
    levelling = Levelling(with_lanes(contract, levels.lanes), lake, pipeline, kafka, keys, until_restart=True)
    for partition, reached in sorted(slowest.items()):
        end = max(furthest.get(partition, reached), ends.get(partition, reached))
        if reached < end:
            levelling.run(Levels(levels.lanes, {partition: reached}, {partition: end}))


def _ends(life: Life, topic: str, plan: StartPlan, kafka: KafkaClient) -> Mapping[Partition, int]:
    """Give the last offset of the old source in each partition of a topic, where a restart tells it."""
    own = [partition for partition in plan.ends if partition[0] == topic]
    times = [restart.kafka_ms for restart in life.pending.values() if restart.kafka_ms is not None]
    later = offsets_at(kafka, own, min(times)) if times else {}
    ends = {partition: later.get(partition, plan.ends[partition]) - 1 for partition in own} if times else {}
    return {**ends, **{(topic, number): restart.offset - 1 for number, restart in life.pending.items()}}

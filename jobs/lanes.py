"""Another number of lanes for a stream, before its job starts: the lanes are levelled, then the tables told.

Lanes that a killed job left at different offsets are levelled here: what the slower ones still lack is read from Kafka,
refined and committed by the lanes that the tables have, up to where the furthest is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from contracts.columns import OTHERS, QUARANTINE, refined_schema
from contracts.model import Contract
from jobs.earliest import Earliest
from jobs.errors import RunRefused
from jobs.identity import IdentityWatch
from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import readable_between
from jobs.kafka.reading import records_between
from jobs.metrics import NoMetrics
from jobs.refinery import Refinery
from jobs.registry import Registries
from jobs.settings import VERSION
from lakehouse.added import effective
from lakehouse.commit import StreamTables
from lakehouse.errors import PositionsRestarted, TopicRecreated, TopicTruncated
from lakehouse.lake import Lake
from lakehouse.lanes import Lane, lanes
from lakehouse.parking import Parking
from lakehouse.relaning import Levels, change_lanes, levels_of, recall_lanes
from lakehouse.segments import Range, Section, SectionRef, write_segment
from lakehouse.standing import standing_of
from lakehouse.state.columns import toastable
from udfs.keys import KeyRing, pinned_keys

ROUNDS = 32  # of completing chains of key changes

Partition = tuple[str, int]  # topic, partition
Say = Callable[[str], None]


def bring_lanes(  # noqa: PLR0917 (what a start knows)
    contracts: Sequence[Contract], lake: Lake, pipeline: str, kafka: KafkaClient, keys: KeyRing, say: Say
) -> None:
    """Give each stream as many lanes as its contract wants; no job may run. Does nothing where it has them.

    say: told what is done. Raises RunRefused for a stream that is parked while it is levelled, or whose topic is
    another by now; KafkaProblem, and what lakehouse.errors says.
    """
    for contract in contracts:
        levels = levels_of(lake, contract, pipeline)
        if levels is None:
            continue
        if not levels.level:
            missing = sum(end - levels.slowest[p] for p, end in levels.furthest.items())
            say(f"{contract.stream}: its {levels.lanes} lanes are levelled first, by up to {missing:,} offsets")
            Levelling(with_lanes(contract, levels.lanes), lake, pipeline, kafka, keys).run(levels)
        say(f"{contract.stream}: {contract.state.lanes} lanes instead of {levels.lanes}")
        change_lanes(lake, contract, pipeline)


def finish_lanes(contract: Contract, lake: Lake, pipeline: str, keys: KeyRing) -> None:
    """Complete what key changes between a stream's lanes have left open; no job may run."""
    standing = standing_of(lake, contract, pipeline)
    if contract.state.lanes == 1 or not toastable(contract) or standing.anchor is None:
        return
    streams = tables_of_lanes(contract, lake, pipeline, keys, standing.anchor.epochs())
    for _ in range(ROUNDS):
        if not sum([stream.commit([], gaps=_no_gap, now_ms=_now_ms()).commits for stream in streams.values()]):
            return


def tables_of_lanes(
    contract: Contract, lake: Lake, pipeline: str, keys: KeyRing, epochs: Mapping[str, int]
) -> dict[Lane, StreamTables]:
    """Give the tables of each of a stream's lanes."""
    pins = pinned_keys(contract, keys)
    return {
        lane: StreamTables(lake, contract, pipeline=pipeline, pins=pins, epochs=epochs, version=VERSION, lane=lane)
        for lane in lanes(contract.state.lanes)
    }


@dataclass
class Levelling:
    """Brings all lanes of one stream (its contract says how many it has) to where the furthest is."""

    contract: Contract
    lake: Lake
    pipeline: str
    kafka: KafkaClient
    keys: KeyRing
    until_restart: bool = False  # a lane stays where the source's positions begin again
    _streams: dict[Lane, StreamTables] = field(default_factory=dict)

    def run(self, levels: Levels) -> None:
        """Read, refine and commit what lanes lack; raises as bring_lanes does."""
        parking = Parking(self.lake, self.pipeline)
        registries = Registries([self.contract], NoMetrics())
        works = Refinery([self.contract], self.lake, parking, registries, self.keys, NoMetrics())
        standing = standing_of(self.lake, self.contract, self.pipeline)
        self._streams = tables_of_lanes(self.contract, self.lake, self.pipeline, self.keys, standing.epochs)
        recall_lanes(self.lake, self.contract, self.pipeline)
        reached = dict(levels.slowest)
        for records in self._records(levels):
            refs = works.take(records)
            if parking.is_parked(self.contract.stream):
                raise RunRefused(f"{self.contract.stream} was parked as its lanes were levelled: see `tidegate status`")
            reached |= {(r.topic, r.partition): r.last for ref in refs for r in ref.ranges}
            self._commit(refs)
        self._commit(self._ends(reached, levels.furthest))

    def _commit(self, refs: Sequence[SectionRef]) -> None:
        partitions = {(r.topic, r.partition) for ref in refs for r in ref.ranges}
        identity = IdentityWatch(self.kafka).of(self.contract.topics, pattern=self.contract.topic_pattern)
        try:
            for lane, stream in list(self._streams.items()):
                try:
                    stream.commit(
                        [ref for ref in refs if ref.lane == lane],
                        gaps=self._readable_between,
                        earliest=Earliest(self.kafka, partitions, {}),
                        identity=identity,
                        now_ms=_now_ms(),
                    )
                except PositionsRestarted:
                    if not self.until_restart:
                        raise
                    del self._streams[lane]  # the rest is for the next epoch
        except (TopicRecreated, TopicTruncated) as error:
            count = self.contract.state.lanes
            raise RunRefused(
                f"{self.contract.stream}: its {count} lanes cannot be levelled any more: {error} "
                f"Set `lanes` to {count}, start, and change the lanes afterwards."
            ) from error

    def _readable_between(self, topic: str, partition: int, after: int, before: int) -> bool:
        return readable_between(self.kafka, topic, partition, after, before)

    def _ends(self, reached: Mapping[Partition, int], furthest: Mapping[Partition, int]) -> list[SectionRef]:
        """Give sections without records up to the furthest offsets, where Kafka has no record there any more."""
        lacking = {p: end for p, end in furthest.items() if reached[p] < end}
        if not lacking:
            return []
        ranges = tuple(Range(*p, None, reached[p] + 1, end, 0) for p, end in sorted(lacking.items()))
        rows = refined_schema(effective(self.lake, self.contract)).empty_table()
        empty = Section(self.contract.stream, rows, QUARANTINE.empty_table(), OTHERS.empty_table(), ranges)
        sections = [replace(empty, lane=lane) for lane in self._streams]
        return write_segment(self.lake, f"{_now_ms()}-level-{self.contract.stream}", sections)

    def _records(self, levels: Levels) -> Iterator[pa.Table]:
        """Give the records that a lane lacks, in batches, up to the furthest offsets."""
        lacking = {p: (levels.slowest[p] + 1, end) for p, end in levels.furthest.items() if levels.slowest[p] < end}
        return records_between(self.kafka, lacking, f"{self.contract.stream}: its lanes lack records")


def with_lanes(contract: Contract, count: int) -> Contract:
    """Give a contract with another number of lanes."""
    return replace(contract, state=replace(contract.state, lanes=count))


def _no_gap(_topic: str, _partition: int, _after: int, _before: int) -> bool:
    return False


def _now_ms() -> int:
    return int(time.time() * 1000)

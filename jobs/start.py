"""Where a pipeline begins: from what its tables hold, never from a checkpoint or a consumer group."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from contracts.model import Contract, Start
from jobs.errors import KafkaProblem, RunRefused
from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import earliest_offsets, end_offsets, offsets_at, partitions_of, topic_ids
from jobs.routing import reads
from lakehouse.begins import keep_begins, read_begins
from lakehouse.lake import Lake
from lakehouse.parking import Parking
from lakehouse.standing import Standing, standings

Partition = tuple[str, int]  # topic, partition


@dataclass(frozen=True)
class StartPlan:
    """What a submission needs: the offsets to read from, the topics' epochs, and the ends to be caught up with."""

    offsets: Mapping[Partition, int]
    ends: Mapping[Partition, int]  # one above the last readable record, seen now
    epochs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # of each stream's topics, where not 0
    accepted: Mapping[Partition, int] = field(default_factory=dict)  # first offset that is not part of the loss
    ids: Mapping[str, str] = field(default_factory=dict)  # of the topics
    begins: Mapping[str, Mapping[Partition, int]] = field(default_factory=dict)  # of streams not from the earliest
    absent: Sequence[str] = ()  # topics that are not there, and that only parked streams would read
    begin: Sequence[tuple[str, str]] = ()  # stream, topic: an epoch that is asked for, in a topic that stays the same
    forget: Sequence[tuple[str, str]] = ()  # stream, topic: an epoch that was asked for before, and is not any more

    def keep(self, lake: Lake, pipeline: str) -> None:
        """Record where streams begin; to be done before the job runs."""
        for stream, own in self.begins.items():
            keep_begins(lake, pipeline, stream, self.ids, own)


@dataclass(frozen=True)
class Asked:
    """What the user decided beforehand about topics that are not what they were."""

    new_epochs: frozenset[str] = frozenset()
    accept_loss: bool = False


def plan_start(contracts: Sequence[Contract], lake: Lake, pipeline: str, kafka: KafkaClient, asked: Asked) -> StartPlan:
    """Decide where to begin, after looking for topics that are missing, recreated, or already cut short by retention.

    Raises KafkaProblem and RunRefused with every problem found, each with its values and what to do.
    """
    parked = {entry.stream for entry in Parking(lake, pipeline).all()}
    topics, absent = resolve_topics(contracts, kafka)
    _refuse_absent(contracts, absent, parked, kafka.bootstrap)
    stands = standings(lake, contracts, pipeline)
    ids = topic_ids(kafka, topics)
    epochs, decided, problems = _epochs(contracts, stands, parked, ids, asked)
    partitions = partitions_of(kafka, topics)
    earliest, ends = earliest_offsets(kafka, partitions), end_offsets(kafka, partitions)
    offsets: dict[Partition, int] = {}
    accepted: dict[Partition, int] = {}
    begins: dict[str, Mapping[Partition, int]] = {}
    for contract in contracts:
        if contract.stream in parked:
            continue
        own = [partition for partition in partitions if reads(contract, partition[0])]
        known = None if contract.start is Start.EARLIEST else read_begins(lake, pipeline, contract.stream, ids)
        # A partition that is not known has come since the first start, and is read in whole.
        begin = _begin(contract, own, earliest, ends, kafka) if known is None else earliest
        if contract.start is not Start.EARLIEST:
            begins[contract.stream] = {partition: begin[partition] for partition in own}
        for partition in own:
            start = _after(stands[contract.stream], partition, epochs.get(contract.stream, {}))
            if start is None and known is not None:
                start = known.get(partition)
            if start is None:
                start = begin[partition]
            else:
                problems += _lost(contract, partition, start, earliest, ends, asked)
                if earliest[partition] > start:
                    accepted[partition] = earliest[partition]
            offsets[partition] = min(offsets.get(partition, start), start)
    if problems:
        raise RunRefused(listed(problems))
    # What only parked streams read: the end.
    froms = {p: max(offsets.get(p, ends[p]), earliest[p]) for p in partitions}
    wanted = [place for place in decided if place[1] in asked.new_epochs]
    forget = [place for place in decided if place[1] not in asked.new_epochs]
    return StartPlan(froms, dict(ends), epochs, accepted, ids, begins, absent, wanted, forget)


def listed(problems: Sequence[str]) -> str:
    """Give one text for all that refuses a start."""
    return "the run was not started:\n" + "\n".join(f"- {problem}" for problem in problems)


def _after(standing: Standing, partition: Partition, epochs: Mapping[str, int]) -> int | None:
    """Give the offset after a stream's progress; None when it has none in the topic's present epoch."""
    state = standing.anchor.partitions.get(partition) if standing.anchor else None
    if state is None or state.epoch != epochs.get(partition[0], 0) or partition not in standing.progress:
        return None
    return standing.progress[partition] + 1


def _epochs(  # noqa: PLR0917 (what decides)
    contracts: Sequence[Contract],
    stands: Mapping[str, Standing],
    parked: Collection[str],
    ids: Mapping[str, str],
    asked: Asked,
) -> tuple[dict[str, dict[str, int]], list[tuple[str, str]], list[str]]:
    """Give the epochs of each stream's topics (where not 0), of which stream and topic the tables must be told what was
    asked, and what is wrong with topics that are not the ones the tables know.

    A parked stream stays where it is, and is no reason to refuse the others.
    """
    epochs: dict[str, dict[str, int]] = {}
    told: list[tuple[str, str]] = []
    problems = []
    for contract, topic in ((c, topic) for topic in sorted(ids) for c in contracts if reads(c, topic)):
        stream, wanted = contract.stream, topic in asked.new_epochs
        standing, now = stands[stream], ids[topic]
        known = standing.anchor.topics.get(topic) if standing.anchor else None
        epoch = standing.epoch(topic)
        if stream in parked:
            pass
        elif known is not None and known != now:
            epoch += 1
            if not wanted:
                problems.append(
                    f"{stream}: topic {topic} has id {now}, the tables were filled from id {known}: it was deleted "
                    f"and created again. Go on with the new one by --new-epoch {topic}"
                )
        elif all(name != topic for name, _ in standing.begun):
            epoch = int(wanted)
        elif standing.former is not None:
            if wanted:
                problems.append(
                    f"{stream}: its tables become others with this start: start once without --new-epoch {topic}, "
                    "then with it"
                )
        elif standing.anchor is not None:
            life = standing.anchor.life(topic)
            if life.begins_by_asking if wanted else life.asked:
                told.append((stream, topic))
        if epoch:
            epochs.setdefault(stream, {})[topic] = epoch
    return epochs, told, problems


def resolve_topics(contracts: Sequence[Contract], kafka: KafkaClient) -> tuple[list[str], list[str]]:
    """Give the topics the contracts read, and those they name that do not exist."""
    existing = set(kafka.topics())
    named = {topic for contract in contracts for topic in contract.topics}
    matched = {t for t in existing if any(c.topic_pattern and re.fullmatch(c.topic_pattern, t) for c in contracts)}
    return sorted((named & existing) | matched), sorted(named - existing)


def _refuse_absent(contracts: Sequence[Contract], absent: Collection[str], parked: Collection[str], where: str) -> None:
    """Raise KafkaProblem when a topic is missing that a stream would read, or nothing is left to be read."""
    wanted = {topic for c in contracts if c.stream not in parked for topic in c.topics}
    if missing := sorted(wanted.intersection(absent)):
        raise KafkaProblem(
            f"Kafka at {where} has no topic {', '.join(missing)}: create it, correct the contract, or pause its stream"
        )
    if not any(c.topic_pattern or set(c.topics).difference(absent) for c in contracts):
        raise KafkaProblem(f"Kafka at {where} has none of the topics, and all streams are parked")


def _begin(
    contract: Contract,
    partitions: Iterable[Partition],
    earliest: Mapping[Partition, int],
    ends: Mapping[Partition, int],
    kafka: KafkaClient,
) -> Mapping[Partition, int]:
    """Give where a stream without progress begins."""
    if contract.start is Start.LATEST:
        return ends
    if contract.start is Start.TIMESTAMP:
        found = offsets_at(kafka, list(partitions), contract.start_timestamp_ms or 0)
        return {**ends, **found}
    return earliest


def _lost(
    contract: Contract,
    partition: Partition,
    start: int,
    earliest: Mapping[Partition, int],
    ends: Mapping[Partition, int],
    asked: Asked,
) -> list[str]:
    """Say what Kafka no longer holds of what a stream still has to read."""
    topic, number = partition
    where = f"{contract.stream}: topic {topic} partition {number}"
    if ends[partition] < start:
        return [
            f"{where} ends at offset {ends[partition]}, but the tables hold it up to {start - 1}: the topic was "
            f"recreated or truncated. Go on with --new-epoch {topic}"
        ]
    if earliest[partition] > start and not asked.accept_loss:
        return [
            f"{where} begins at offset {earliest[partition]}, but the tables hold it only up to {start - 1}: offsets "
            f"{start} to {earliest[partition] - 1} are gone. Restore them, or go on without them with --accept-loss"
        ]
    return []

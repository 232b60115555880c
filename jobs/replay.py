"""Read a stream's records again, by today's contract: into its own tables, beside the job that fills them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from contracts.model import Contract
from jobs.again import Again
from jobs.chosen import load_with_keys
from jobs.credentials import lake_options
from jobs.errors import RunRefused
from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import earliest_offsets, offsets_at, partitions_of, topic_ids
from jobs.kafka.reading import records_between
from jobs.shown import Bar
from jobs.spans import Asked, Found, Partition, places, spans_of
from lakehouse.epochs import by_epoch
from lakehouse.lake import Lake
from lakehouse.landing import Landed
from lakehouse.standing import Standing, standing_of
from udfs.keys import KeyRing

AT_ONCE = 100_000  # records that land together


@dataclass
class Replayed:
    """What came of reading again."""

    read: int = 0
    added: int = 0  # rows that the tables lacked
    held: int = 0  # rows that they had
    resolved: int = 0  # records of the quarantine
    quarantined: int = 0  # records that no table had, and that wait now
    too_old: int = 0
    lost: list[str] = field(default_factory=list)  # what Kafka no longer holds

    def take(self, landed: Landed) -> None:
        """Add what came of some of the records."""
        self.added += landed.added
        self.held += landed.held
        self.resolved += landed.resolved
        self.quarantined += landed.quarantined
        self.too_old += sum(len(table) for table in landed.too_old)


def replay(
    stream: str,
    contracts: Path,
    lake_uri: str,
    pipeline: str,
    asked: Asked,
    *,
    kafka: KafkaClient,
    keys: Path | None,
    console: Console,
) -> Replayed:
    """Read a stream's records again, and add what its tables lack by today's contract; nothing is taken away.

    Raises RunRefused where the topics are not those that the tables were filled from, KafkaProblem, and what
    lakehouse.errors says.
    """
    contract, ring = load_with_keys(contracts, stream, keys)
    lake = Lake.open(lake_uri, lake_options())
    return replay_records(contract, lake, pipeline, asked, kafka=kafka, keys=ring, console=console)


def replay_records(
    contract: Contract,
    lake: Lake,
    pipeline: str,
    asked: Asked,
    *,
    kafka: KafkaClient,
    keys: KeyRing,
    console: Console,
) -> Replayed:
    """Do as replay says for a loaded contract."""
    standing = standing_of(lake, contract, pipeline)
    found = found_spans(contract, standing, kafka, asked)
    done = Replayed(lost=list(found.lost))
    again = Again(contract, lake, pipeline, keys)
    assert standing.anchor is not None, "found_spans says so"
    with Bar(console, f"reading {contract.stream} again", found.total) as bar:
        reading = records_between(kafka, found.spans, f"{contract.stream}: records are wanted")
        for records in together(reading, AT_ONCE):
            done.read += len(records)
            for epochs, part in by_epoch(records, standing.anchor):
                done.take(again.land(part, epochs))
            bar.advance(len(records))
    return done


def found_spans(contract: Contract, standing: Standing, kafka: KafkaClient, asked: Asked) -> Found:
    """Give the offsets that a stream has committed and that are asked for. Raises RunRefused."""
    if standing.anchor is None:
        raise RunRefused(f"the pipeline has committed nothing of {contract.stream}: is --name right?")
    progress = {p: last for p, last in standing.progress.items() if _in_epoch(standing, p)}
    topics = sorted({topic for topic, _ in progress})
    verify_topics(contract, standing, topic_ids(kafka, topics))
    partitions = [p for p in partitions_of(kafka, topics) if p in progress]
    earliest = earliest_offsets(kafka, partitions)
    if asked.from_offsets:
        begins = places(asked.from_offsets, partitions)
    elif asked.from_ms is not None:
        begins = offsets_at(kafka, partitions, asked.from_ms)
    else:
        begins = {p: earliest[p] for p in partitions}
    ends = places(asked.to_offsets, partitions)
    if asked.to_ms is not None:
        ends = {p: offset - 1 for p, offset in offsets_at(kafka, partitions, asked.to_ms).items()}
    return spans_of(begins, ends, earliest, progress)


def verify_topics(contract: Contract, standing: Standing, ids: dict[str, str]) -> None:
    """Raise RunRefused when a topic is not the one that the tables were filled from."""
    known = standing.anchor.topics if standing.anchor else {}
    for topic, now in ids.items():
        if known.get(topic, now) != now:
            raise RunRefused(
                f"{contract.stream}: topic {topic} has id {now}, the tables were filled from id {known[topic]}: it was "
                "created again, and its offsets mean other records. Nothing was read."
            )


def _in_epoch(standing: Standing, partition: Partition) -> bool:
    known = standing.anchor.partitions.get(partition) if standing.anchor else None
    return known is not None and known.epoch == standing.epoch(partition[0])


def together(parts: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Put tables together until they have so many rows, or there are no more."""
    held: list[pa.Table] = []
    for part in parts:
        held.append(part)
        if sum(map(len, held)) >= rows:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def as_plain(done: Replayed) -> dict[str, Any]:
    """Give what came of it for scripts."""
    return dict(vars(done))


def show_replayed(done: Replayed, stream: str, console: Console) -> None:
    """Print what came of it."""
    console.print(
        f"{stream}: {done.read:,} records were read again; {done.added:,} became rows, {done.held:,} were rows already",
        highlight=False,
    )
    beside = {
        f"{done.resolved:,} records of the quarantine are resolved": done.resolved,
        f"{done.quarantined:,} records wait in the quarantine now": done.quarantined,
        f"{done.too_old:,} are older than the contract's deleteMemory and were left out: a deleted row could come "
        "back. Read them into a new version with --into": done.too_old,
    }
    for said, count in beside.items():
        if count:
            console.print(said, highlight=False)
    for said in done.lost:
        console.print(said, highlight=False)

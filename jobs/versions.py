"""A stream's tables once more under another name, filled from Kafka by today's contract, and put in their place."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from contracts.model import Contract
from jobs.chosen import load_chosen, load_with_keys
from jobs.credentials import lake_options
from jobs.earliest import Earliest
from jobs.errors import RunRefused
from jobs.identity import IdentityWatch
from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import earliest_offsets, end_offsets, offsets_at, partitions_of, readable_between, topic_ids
from jobs.kafka.reading import records_between
from jobs.metrics import NoMetrics
from jobs.migrate import refuse_while_running
from jobs.refinery import Refinery
from jobs.registry import Registries
from jobs.replay import verify_topics
from jobs.settings import VERSION
from jobs.shown import Bar
from jobs.spans import Asked, Found, Partition, places, spans_of
from jobs.start import resolve_topics
from lakehouse.added import added_columns
from lakehouse.commit import StreamTables
from lakehouse.epochs import Step, begin_epoch, steps_of
from lakehouse.errors import NotBegun
from lakehouse.lake import Lake
from lakehouse.lives import Life
from lakehouse.parking import Parking
from lakehouse.segments import SectionRef
from lakehouse.standing import Standing, standing_of
from lakehouse.swapping import swap as swap_tables
from lakehouse.swapping import take_columns
from udfs.keys import KeyRing, pinned_keys

NEVER_IDLE_MS = 100 * 365 * 86_400_000
NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")


@dataclass
class Filled:
    """What a version holds after reading."""

    stream: str  # under which name
    read: int = 0
    rows: int = 0
    quarantined: int = 0
    lost: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Give it for scripts."""
        return asdict(self)


def version_of(contract: Contract, name: str) -> Contract:
    """Give the contract of a stream's version; raises ValueError for a name that no table can have."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a version: lower-case letters, digits and single underscores can")
    # Its partitions are read one after the other: none of them is idle, however long it waits for its turn.
    patient = replace(contract.event_time, idle_timeout_ms=NEVER_IDLE_MS)
    stream, state = f"{contract.stream}__{name}", replace(contract.state, lanes=1)
    return replace(contract, stream=stream, state=state, event_time=patient)


def fill(
    stream: str,
    contracts: Path,
    lake_uri: str,
    pipeline: str,
    name: str,
    asked: Asked,
    *,
    kafka: KafkaClient,
    keys: Path | None,
    console: Console,
) -> Filled:
    """Fill a version of a stream from Kafka up to the end seen now, by today's contract; goes on where it stopped.

    Raises RunRefused when the stream's contract says to stop at a record, KafkaProblem, and what lakehouse.errors says.
    """
    contract, ring = load_with_keys(contracts, stream, keys)
    filling = Filling(version_of(contract, name), Lake.open(lake_uri, lake_options()), pipeline, kafka, ring)
    return filling.run(contract, asked, console)


@dataclass
class Filling:
    """Fills the tables of one version, by the same verbs as the job."""

    contract: Contract  # under the version's name
    lake: Lake
    pipeline: str
    kafka: KafkaClient
    keys: KeyRing

    def run(self, original: Contract, asked: Asked, console: Console) -> Filled:
        """Read up to the ends seen now, and commit; raises as fill does."""
        standing = standing_of(self.lake, original, self.pipeline)
        topics, _ = resolve_topics([original], self.kafka)
        verify_topics(original, standing, topic_ids(self.kafka, topics))
        own = standing_of(self.lake, self.contract, self.pipeline)
        found = self._spans(own, topics, asked)
        lives = {topic: standing.anchor.life(topic) if standing.anchor else Life(0) for topic in topics}
        if (asked.to_offsets or asked.to_ms is not None) and any(life.begins for life in lives.values()):
            raise RunRefused(
                f"{original.stream}: an epoch began in a topic that stayed the same, so a version is read up to the "
                "topic's end: leave out --to-time and --to-offset"
            )
        done = Filled(self.contract.stream, lost=list(found.lost))
        works = Refinery(
            [self.contract],
            self.lake,
            Parking(self.lake, self.pipeline),
            Registries([self.contract], NoMetrics()),
            self.keys,
            NoMetrics(),
        )
        with Bar(console, f"filling {self.contract.stream}", found.total) as bar:
            for step in steps_of(found.spans, lives):
                tables = self._tables(own, step)
                for records in records_between(self.kafka, step.spans, f"{original.stream}: records are wanted"):
                    refs = works.take(records)
                    self._refuse_parked(works.parking)
                    self._commit(tables, refs, done)
                    done.read += len(records)
                    bar.advance(len(records))
        return done

    def _tables(self, own: Standing, step: Step) -> StreamTables:
        """Give the version's tables in a step's epochs; those that the version (as it stood) did not reach begin."""
        for topic, firsts in step.begins.items():
            if own.epoch(topic) < step.epochs[topic]:
                with suppress(NotBegun):  # then the version begins with this epoch
                    begin_epoch(self.lake, self.contract, self.pipeline, topic, firsts)
        return StreamTables(
            self.lake,
            self.contract,
            pipeline=self.pipeline,
            pins=pinned_keys(self.contract, self.keys),
            epochs={topic: epoch for topic, epoch in step.epochs.items() if epoch},
            version=VERSION,
            trusting=True,  # what the stream itself took for right is so here
        )

    def _spans(self, standing: Standing, topics: Sequence[str], asked: Asked) -> Found:
        """Give the offsets that the version lacks, up to the ends seen now."""
        partitions = partitions_of(self.kafka, topics)
        earliest, ends = earliest_offsets(self.kafka, partitions), end_offsets(self.kafka, partitions)
        begins: Mapping[Partition, int] = {p: earliest[p] for p in partitions}
        if asked.from_offsets:
            begins = {**begins, **places(asked.from_offsets, partitions)}
        elif asked.from_ms is not None:
            begins = {**ends, **offsets_at(self.kafka, partitions, asked.from_ms)}
        begins = {p: standing.progress[p] + 1 if p in standing.progress else at for p, at in begins.items()}
        lasts = dict(places(asked.to_offsets, partitions))
        if asked.to_ms is not None:
            lasts = {p: at - 1 for p, at in offsets_at(self.kafka, partitions, asked.to_ms).items()}
        return spans_of(begins, lasts, earliest, {p: end - 1 for p, end in ends.items()})

    def _commit(self, tables: StreamTables, refs: Sequence[SectionRef], done: Filled) -> None:
        partitions = {(r.topic, r.partition) for ref in refs for r in ref.ranges}
        report = tables.commit(
            refs,
            gaps=lambda *gap: readable_between(self.kafka, *gap),
            earliest=Earliest(self.kafka, partitions, {}),
            identity=IdentityWatch(self.kafka).of(self.contract.topics, pattern=self.contract.topic_pattern),
            now_ms=int(time.time() * 1000),
        )
        tables.maintain()
        done.rows += report.counts.get("applied", 0)
        done.quarantined += report.counts.get("quarantined", 0)
        self.lake.delete(sorted({ref.path for ref in refs}))  # nobody else reads them

    def _refuse_parked(self, parking: Parking) -> None:
        parked = parking.read(self.contract.stream)
        if parked is not None:
            parking.unpark(self.contract.stream)
            raise RunRefused(f"{self.contract.stream}: {parked.reason}")


def swap(
    stream: str,
    contracts: Path,
    lake_uri: str,
    pipeline: str,
    name: str,
    *,
    cluster: str | None,
    accept_loss: bool,
    console: Console,
) -> list[dict[str, Any]]:
    """Let a stream's tables become those of its version. Raises RunRefused while the pipeline's job runs."""
    (contract,) = load_chosen(contracts, [stream])
    other, lake = version_of(contract, name), Lake.open(lake_uri, lake_options())
    refuse_while_running(lake, pipeline, cluster, "swap")
    take_columns(lake, contract.stream, added_columns(lake, other.stream))
    with _Shown(console) as shown:
        done = swap_tables(lake, contract, other, pipeline, shown.told, accept_loss=accept_loss)
    return [asdict(one) for one in done]


def show_filled(done: Filled, stream: str, name: str, console: Console) -> None:
    """Print what a version holds, and what to do with it."""
    console.print(
        f"{done.stream}: {done.read:,} records were read; {done.rows:,} became rows, {done.quarantined:,} wait in its "
        f"quarantine. Compare with `tidegate diff --stream {stream} --with {name}`",
        highlight=False,
    )
    for said in done.lost:
        console.print(said, highlight=False)


def show_swapped(done: Sequence[Mapping[str, Any]], stream: str, name: str, console: Console) -> None:
    """Print what became of each table."""
    table = Table("table", "rows", "files before", "version before")
    for one in done:
        state = " (swapped already)" if one["already"] else ""
        table.add_row(one["table"] + state, f"{one['rows']:,}", f"{one['files']:,}", str(one["version"]))
    console.print(table)
    console.print(
        f"{stream} is what {stream}__{name} was; earlier versions of its tables stay readable until a vacuum. Start "
        "the job again with `tidegate run`",
        highlight=False,
    )


class _Shown:
    """Shows how far each table is."""

    def __init__(self, console: Console) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
        self._bars = Progress(*columns, console=console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Shown:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def told(self, table: str, done: int, of: int) -> None:
        if table not in self._tasks:
            self._tasks[table] = self._bars.add_task(f"writing {table}", total=of)
        self._bars.update(self._tasks[table], completed=done)

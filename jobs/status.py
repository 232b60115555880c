"""How a pipeline is: per stream whether it runs, is behind or parked; per table and partition what is committed."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contracts.load import load_contracts
from contracts.model import Contract
from jobs.cluster import Cluster
from jobs.credentials import lake_options
from jobs.errors import ClusterUnreachable
from jobs.freshness import Freshness, job_of
from jobs.freshness_report import freshness_table
from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import end_offsets, partitions_of
from jobs.launch import last_run
from jobs.routing import reads
from jobs.start import resolve_topics
from jobs.table_status import worn
from lakehouse.drift import read_drift
from lakehouse.freshness import Colour, Health, Job
from lakehouse.lake import Lake
from lakehouse.parking import Parking
from lakehouse.standing import Standing, standings
from lakehouse.table_facts import TableFacts, facts_of
from lakehouse.upkeep import Requests

RUNNING, LEVEL, BEHIND, PARKED, STOPPED = "running", "level", "behind", "parked", "stopped"
COLOURS = {RUNNING: "green", LEVEL: "green", BEHIND: "yellow", PARKED: "red", STOPPED: "yellow"}

NEWEST_DRIFT = 10  # notes shown

Partition = tuple[str, int]  # topic, partition


@dataclass(frozen=True)
class PartitionStatus:
    """How far one partition is in one stream."""

    topic: str
    partition: int
    committed: int | None  # last applied offset
    lag: int | None  # offsets between it and the end; None without Kafka


@dataclass(frozen=True)
class StreamStatus:
    """How one stream is."""

    stream: str
    state: str
    reason: str
    watermark_ms: int | None
    counts: Mapping[str, int]
    commit_age_seconds: float | None
    tables: Mapping[str, int]  # name -> version
    partitions: tuple[PartitionStatus, ...]
    # topic -> rows of current that its newest snapshot does not hold, and how many of them were removed
    vanished: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    unsure: tuple[str, ...] = ()  # topics of which a row of that snapshot may be in quarantine, without a readable key
    facts: tuple[TableFacts, ...] = ()  # how worn its tables are
    asked: bool = False  # to merge files, and has not done it yet
    notes: tuple[str, ...] = ()  # where tables are not kept as the contract wants, and what to do
    health: Health | None = None  # how fresh it is, beside what its contract promises


@dataclass(frozen=True)
class Status:
    """How a pipeline is; healthy when no stream is parked or red and its job runs or has nothing to do."""

    pipeline: str
    job: str | None
    job_state: str | None
    streams: tuple[StreamStatus, ...]
    drift: tuple[Mapping[str, Any], ...] = ()  # the newest notes, newest first (lakehouse.drift.DRIFT)

    @property
    def healthy(self) -> bool:
        """Say whether nothing needs attention."""
        sound = all(stream.state in (RUNNING, LEVEL) for stream in self.streams)
        return sound and not any(stream.health and stream.health.colour is Colour.RED for stream in self.streams)

    def as_dict(self) -> dict[str, Any]:
        """Give the status as plain values."""
        made = {**dataclasses.asdict(self), "healthy": self.healthy}
        for stream, given in zip(self.streams, made["streams"], strict=True):
            for facts, values in zip(stream.facts, given["facts"], strict=True):
                values["dead_share"] = round(facts.dead_share, 4)
        return made


def read_status(
    contracts: Path,
    lake_uri: str,
    pipeline: str,
    *,
    kafka: str | None,
    cluster: str | None,
    kafka_config: Path | None,
) -> Status:
    """Read how the pipeline is, from the lake, and where given from Kafka (lag) and the cluster (job)."""
    loaded = load_contracts(contracts, dict(os.environ))
    lake = Lake.open(lake_uri, lake_options())
    job, job_state = _job(lake, pipeline, cluster)
    client = KafkaClient.from_file(kafka_config, kafka) if kafka else None
    ends = _ends(loaded, client)
    parked = {entry.stream: entry.reason for entry in Parking(lake, pipeline).all()}
    stands = standings(lake, loaded, pipeline)
    judged = Freshness(loaded, lake, pipeline, client).evaluate(job_of(job_state), stands=stands, ends=ends)
    healths = {one.stream: one.health for one in judged}
    facts = facts_of(lake, loaded, pipeline)
    asked = Requests(lake, pipeline).all()
    streams = tuple(
        replace(
            _stream(contract, stands[name], ends, parked.get(name), job_state),
            facts=tuple(facts[name]),
            asked=name in asked,
            health=healths[name],
        )
        for contract in loaded
        for name in [contract.stream]
    )
    return Status(pipeline, job, job_state, streams, _drift(lake, {contract.stream for contract in loaded}))


def _drift(lake: Lake, streams: Collection[str]) -> tuple[dict[str, Any], ...]:
    """Give the newest notes of drift about the pipeline's streams, times as text."""
    own = [note for note in read_drift(lake, newest=1000) if note["stream"] in streams][:NEWEST_DRIFT]
    return tuple({**note, "seen_at": note["seen_at"].strftime("%F %TZ")} for note in own)


def _job(lake: Lake, pipeline: str, cluster: str | None) -> tuple[str | None, str | None]:
    """Give the pipeline's job and its state, as far as the cluster tells."""
    entry = last_run(lake, pipeline)
    if entry is None:
        return None, None
    try:
        asked = Cluster(cluster or entry["request"]["cluster"])
        running = asked.running(f"tidegate {pipeline}")
        job = running or entry["job"]
        return job, asked.state(job) or "UNKNOWN"
    except ClusterUnreachable:
        return entry["job"], None


def _ends(contracts: tuple[Contract, ...], client: KafkaClient | None) -> dict[Partition, int] | None:
    if client is None:
        return None
    return dict(end_offsets(client, partitions_of(client, resolve_topics(contracts, client)[0])))


def _stream(
    contract: Contract,
    state: Standing,
    ends: Mapping[Partition, int] | None,
    parked: str | None,
    job_state: str | None,
) -> StreamStatus:
    own = set(state.progress) | {p for p in ends or () if reads(contract, p[0])}
    partitions = tuple(_partition(p, state.progress.get(p), ends) for p in sorted(own))
    word, reason = _word(partitions, parked, job_state)
    age = None if state.committed_at_ms is None else round(time.time() - state.committed_at_ms / 1000, 1)
    counts = state.anchor.counts if state.anchor else {}
    watermark = state.anchor.watermark_ms if state.anchor else None
    return StreamStatus(
        contract.stream, word, reason, watermark, counts, age, state.versions, partitions, _vanished(state),
        _unsure(state), notes=state.notes,
    )  # fmt: skip


def _vanished(state: Standing) -> dict[str, tuple[int, int]]:
    snapshots = state.anchor.snapshots if state.anchor else {}
    return {topic: (one["found"], one["removed"]) for topic, one in sorted(snapshots.items()) if one["found"]}


def _unsure(state: Standing) -> tuple[str, ...]:
    snapshots = state.anchor.snapshots if state.anchor else {}
    return tuple(topic for topic, one in sorted(snapshots.items()) if one["found"] and one.get("keyless"))


def _partition(partition: Partition, committed: int | None, ends: Mapping[Partition, int] | None) -> PartitionStatus:
    end = None if ends is None else ends.get(partition)
    lag = None if end is None else max(end - 1 - (-1 if committed is None else committed), 0)
    return PartitionStatus(*partition, committed, lag)


def _word(partitions: tuple[PartitionStatus, ...], parked: str | None, job_state: str | None) -> tuple[str, str]:
    """Give the state's word, and why."""
    if parked is not None:
        return PARKED, parked
    lag = sum(p.lag or 0 for p in partitions)
    if job_of(job_state) is not Job.DOWN:
        return (BEHIND, f"{lag} offsets behind") if lag else (RUNNING, "")
    if all(p.lag == 0 for p in partitions):
        return LEVEL, "all that Kafka holds is committed"
    return STOPPED, "no job runs; go on with `tidegate run`"


def show_status(status: Status, console: Console) -> None:
    """Print the status as tables: streams, their partitions and, where there is any, the newest drift."""
    streams = Table("stream", "state", "why", "read", "applied", "quarantined", "late", "watermark", "last commit")
    for s in status.streams:
        numbers = (f"{s.counts.get(name, 0):,}" for name in ("read", "applied", "quarantined", "late"))
        watermark = "" if s.watermark_ms is None else time.strftime("%F %TZ", time.gmtime(s.watermark_ms / 1000))
        age = "" if s.commit_age_seconds is None else f"{s.commit_age_seconds:.0f} s ago"
        streams.add_row(s.stream, f"[{COLOURS[s.state]}]{s.state}[/]", s.reason, *numbers, watermark, age)
    partitions = Table("stream", "topic", "partition", "committed offset", "lag")
    for s in status.streams:
        for p in s.partitions:
            partitions.add_row(s.stream, p.topic, str(p.partition), _text(p.committed), _text(p.lag))
    console.print(f"pipeline {status.pipeline}, job {status.job or '-'} {status.job_state or ''}", highlight=False)
    console.print(streams, freshness_table({s.stream: s.health for s in status.streams if s.health}))
    console.print(partitions, worn(facts for s in status.streams for facts in s.facts))
    for s in status.streams:
        if s.asked:
            console.print(f"the writer of {s.stream} is asked to merge files, and has not done it yet", highlight=False)
        if missed := s.counts.get("missed"):
            console.print(f"{s.stream}_late: {missed:,} times a row was not counted in a window", highlight=False)
        for topic, (found, removed) in s.vanished.items():
            kept = "`vanished: report`, or above `vanishedShare`"
            if topic in s.unsure:
                kept = "a record in quarantine without a readable key may be one of them"
            done = "removed" if removed else f"left as they are ({kept})"
            said = f"{s.stream}: the newest snapshot of {topic} lacks {found:,} rows of the table, {done}"
            console.print(said, highlight=False, markup=False)
    for said in (note for s in status.streams for note in s.notes):
        console.print(f"[yellow]{escape(said)}[/]", highlight=False, soft_wrap=True)
    if status.drift:
        drift = Table("seen at", "stream", "drift", "column", "contract", "messages", "topic", "partition", "offset")
        for note in status.drift:
            names = ("seen_at", "stream", "kind", "column", "before", "after", "topic", "partition", "offset")
            drift.add_row(*("" if note[name] is None else str(note[name]) for name in names))
        console.print(drift)


def _text(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"

"""The working part of the commit function: different streams, and their lanes, in parallel, each by the lakehouse's
one verb. Sections come in channels (lakehouse.lanes): a stream's, or one of its lanes'."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta

from contracts.model import Contract
from jobs.defects import Defect, guarded
from jobs.earliest import Earliest
from jobs.identity import IdentityWatch
from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import readable_between
from jobs.metrics import Metrics
from jobs.patience import Patience
from jobs.refinery import refined_at_ms
from jobs.routing import reads
from jobs.settings import VERSION, IngestSettings
from lakehouse.commit import CommitReport, StreamTables
from lakehouse.errors import (
    KeyPinChanged,
    LakehouseError,
    OtherPipeline,
    PartialTable,
    PositionsRestarted,
    RestoredTable,
    RetentionLoss,
    SchemaRefused,
    StateMissing,
    TableRefused,
    TableVanished,
    TableWentBack,
    TopicRecreated,
    TopicTruncated,
    TruncateRefused,
)
from lakehouse.identity import TopicIdentity
from lakehouse.lake import Lake
from lakehouse.lanes import Lane, channel, channel_lane
from lakehouse.parking import Parking
from lakehouse.segments import SectionRef, collect_garbage
from lakehouse.standing import standings
from udfs.keys import KeyRing, pinned_keys

# What concerns one stream for good: it is parked and the others go on. Anything else restarts the job.
PARKS = (
    Defect, KeyPinChanged, OtherPipeline, PartialTable, PositionsRestarted, RestoredTable, RetentionLoss, SchemaRefused,
    StateMissing, TableRefused, TableVanished, TableWentBack, TopicRecreated, TopicTruncated, TruncateRefused,
)  # fmt: skip
THREADS = 8
HOUSEKEEPING_SECONDS = 60.0
SEGMENT_SAFETY_AGE = timedelta(hours=1)


@dataclass
class Committer:
    """Commits sections to the tables of their streams; holds table handles as caches, nothing else."""

    settings: IngestSettings
    contracts: Mapping[str, Contract]
    lake: Lake
    keys: KeyRing
    kafka: KafkaClient
    metrics: Metrics
    patience: Patience = field(default_factory=Patience)
    _tables: dict[str, StreamTables] = field(default_factory=dict)
    _kept_house: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._parking = Parking(self.lake, self.settings.pipeline)
        self._identity = IdentityWatch(self.kafka, self.settings.identity_seconds)
        self._accepted = {(topic, partition): first for topic, partition, first in self.settings.accepted_losses}
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="commit")
        for name in ("segments_deleted", "housekeeping_failures"):  # the background must not bring new names
            self.metrics.count(name, 0)

    def commit(self, sections: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Commit each channel's sections (references as text); give a report (JSON) a channel.

        A lane without sections completes what other lanes' key changes lead to.

        Raises the first LakehouseError that is not one stream's own affair: the job then starts again.
        """
        self._keep_house()
        refs = {name: [SectionRef.from_text(text) for text in texts] for name, texts in sections.items()}
        partitions = {(r.topic, r.partition) for own in refs.values() for ref in own for r in ref.ranges}
        earliest = Earliest(self.kafka, partitions, self._accepted)
        running = {
            name: self._pool.submit(self._commit, *channel_lane(name), own, earliest) for name, own in refs.items()
        }
        return {name: future.result() for name, future in running.items()}

    def _commit(self, stream: str, lane: Lane, refs: Sequence[SectionRef], earliest: Earliest) -> str:
        try:
            report = self.patience.until_done(
                lambda: guarded(f"stream {stream}: the commit", lambda: self._apply(stream, lane, refs, earliest)),
                each=lambda: self.metrics.count("commit_retries", 1, stream=stream),
            )
        except PARKS as error:
            self._parking.park(stream, str(error))
            self.metrics.count("streams_parked", 1, stream=stream)
            report = None
        if report is None:
            return json.dumps({"stream": stream, "parked": True})
        self._report(stream, report, refs)
        self._maintain(stream, lane)
        return json.dumps({"stream": stream, "rows": report.rows, "seconds": round(report.seconds, 3)})

    def _apply(self, stream: str, lane: Lane, refs: Sequence[SectionRef], earliest: Earliest) -> CommitReport | None:
        """Commit once; None when the stream is parked."""
        if self._parking.is_parked(stream):
            return None
        ranges = [covered for ref in refs for covered in ref.ranges]
        # A reader that went back has met another topic of the same name.
        went_back = any(r.prev is not None and r.first <= r.prev for r in ranges)
        return self._stream(stream, lane).commit(
            refs,
            gaps=self._readable_between,
            earliest=earliest,
            identity=self._identity_of(stream, {r.topic for r in ranges}, now=went_back) if refs else None,
            now_ms=int(time.time() * 1000),
        )

    def _identity_of(self, stream: str, read: Set[str], *, now: bool) -> TopicIdentity:
        """Give what Kafka says of all topics of a stream, and of no others."""
        contract = self.contracts[stream]
        found = self._identity.of(read | set(contract.topics), pattern=contract.topic_pattern, now=now)
        return found.only(lambda topic: reads(contract, topic))

    def _stream(self, stream: str, lane: Lane) -> StreamTables:
        name = channel(stream, lane)
        if name not in self._tables:
            contract = self.contracts[stream]
            self._tables[name] = StreamTables(
                self.lake,
                contract,
                pipeline=self.settings.pipeline,
                pins=pinned_keys(contract, self.keys),
                epochs=self.settings.epochs.get(stream, {}),
                version=VERSION,
                max_rows=self.settings.max_rows_per_commit,
                lane=lane,
            )
        return self._tables[name]

    def _readable_between(self, topic: str, partition: int, after: int, before: int) -> bool:
        return readable_between(self.kafka, topic, partition, after, before)

    def _report(self, stream: str, report: CommitReport, refs: Sequence[SectionRef]) -> None:
        now_ms = int(time.time() * 1000)
        self.metrics.count("commits", report.commits, stream=stream)
        self.metrics.count("commit_rows", report.rows, stream=stream)
        self.metrics.count("commit_retries", report.retries, stream=stream)
        self.metrics.count("records_late", report.counts.get("late", 0), stream=stream)
        self.metrics.count("windows_missed", report.counts.get("missed", 0), stream=stream)
        if not refs:
            return
        self.metrics.set("commit_duration_ms", int(report.seconds * 1000), stream=stream)
        self.metrics.set("latency_ingest_ms", now_ms - min(refined_at_ms(ref.path) for ref in refs), stream=stream)
        event_times = [r.max_event_time_ms for ref in refs for r in ref.ranges if r.max_event_time_ms is not None]
        if event_times:
            self.metrics.set("latency_event_ms", now_ms - max(event_times), stream=stream)
        if report.watermark_ms is not None:
            self.metrics.set("watermark_ms", report.watermark_ms, stream=stream)

    def _maintain(self, stream: str, lane: Lane) -> None:
        """Keep the stream's files few, for a bounded time; what fails here fails no commit."""
        done = self._stream(stream, lane).maintain()
        self.metrics.count("files_compacted", done.files, stream=stream)
        self.metrics.count("maintenance_lost", done.lost, stream=stream)
        self.metrics.count("maintenance_failures", len(done.failures), stream=stream)
        held = [tables.index_bytes for name, tables in list(self._tables.items()) if channel_lane(name)[0] == stream]
        self.metrics.set("index_bytes", sum(held), stream=stream)

    def _keep_house(self) -> None:
        """Delete segments nobody needs any more, in the background, once in HOUSEKEEPING_SECONDS."""
        if time.monotonic() - self._kept_house > HOUSEKEEPING_SECONDS:
            self._kept_house = time.monotonic()
            self._pool.submit(self._collect)

    def _collect(self) -> None:
        try:
            stands = standings(self.lake, list(self.contracts.values()), self.settings.pipeline)
            progress = {stream: standing.progress for stream, standing in stands.items()}
            collected = collect_garbage(self.lake, progress, SEGMENT_SAFETY_AGE)
        except LakehouseError:
            self.metrics.count("housekeeping_failures", 1)  # commits meet the same trouble, and say so
        else:
            self.metrics.count("segments_deleted", collected.deleted)

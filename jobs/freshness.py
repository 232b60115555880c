"""How fresh a pipeline's streams are: what Kafka holds beside where the tables stand, judged and kept in the lake.

The running job, `tidegate run --supervise` and `tidegate status` ask here; none of them waits for it, but status.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from contracts.model import Contract, Start
from jobs.cluster import FINISHED
from jobs.errors import KafkaProblem
from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import Partition, earliest_offsets, end_offsets, oldest_from, partitions_of, topic_ids
from jobs.routing import reads
from jobs.start import resolve_topics
from lakehouse.begins import read_begins
from lakehouse.errors import FatalError, LakehouseError
from lakehouse.freshness import Asked, Health, Job, Waiting, evaluate
from lakehouse.lake import Lake
from lakehouse.parking import Parking
from lakehouse.sla_table import Evaluation, SlaTable
from lakehouse.standing import Standing, standing_of, standings

PEEK_SECONDS = 10.0  # for the oldest waiting records of all streams
JOB, SUPERVISOR = "job", "supervisor"  # who judges
FAILING = frozenset({"FAILING", "RESTARTING"})  # states of a job that has not ended

Positions = Mapping[Partition, int]  # the next offset to commit


def job_of(state: str | None) -> Job:
    """Give how a job is by its state in Flink; None or UNKNOWN: nobody says that it runs."""
    if state is None or state in (*FINISHED, "UNKNOWN"):
        return Job.DOWN
    return Job.FAILS if state in FAILING else Job.RUNS


@dataclass
class Freshness:
    """Judges the streams of one pipeline."""

    contracts: Sequence[Contract]
    lake: Lake
    pipeline: str
    kafka: KafkaClient | None  # None: what waits is not known

    def __post_init__(self) -> None:
        self._table = SlaTable(self.lake, self.pipeline)
        self._parking = Parking(self.lake, self.pipeline)

    def evaluate(
        self, job: Job, *, stands: Mapping[str, Standing] | None = None, ends: Positions | None = None
    ) -> list[Evaluation]:
        """Judge every stream as of now; `stands` and `ends` where the caller has read them.

        While Kafka is away, what waits is not known. Raises what lakehouse.errors says.
        """
        broken: dict[str, str] = {}
        stands = self._stands(broken) if stands is None else stands
        try:
            waiting = self._waiting(stands, ends)
        except KafkaProblem:
            waiting = {}
        still = broken | {entry.stream: entry.reason for entry in self._parking.all()}
        with suppress(LakehouseError):  # then there is not enough history
            self._table.refresh()
        now_ms = int(time.time() * 1000)

        def judged(contract: Contract) -> Evaluation:
            name, standing = contract.stream, stands[contract.stream]
            past = self._table.past(name, standing, now_ms)
            asked = Asked(contract.sla, standing, waiting.get(name), job, still.get(name), past)
            return Evaluation(name, evaluate(asked, now_ms), standing)

        return [judged(contract) for contract in self.contracts]

    def record(self, evaluations: Sequence[Evaluation], by: str) -> int:
        """Keep evaluations in the lake, those that say something new; gives how many. Raises LakehouseError."""
        return self._table.record(evaluations, by, int(time.time() * 1000))

    def _stands(self, broken: dict[str, str]) -> Mapping[str, Standing]:
        """Read where the tables stand; a stream whose tables cannot be continued is noted, and blinds for no other."""
        try:
            return standings(self.lake, self.contracts, self.pipeline)
        except FatalError:
            stands: dict[str, Standing] = {}
            for contract in self.contracts:
                try:
                    stands[contract.stream] = standing_of(self.lake, contract, self.pipeline)
                except FatalError as error:
                    broken[contract.stream], stands[contract.stream] = str(error), Standing()
            return stands

    def _waiting(self, stands: Mapping[str, Standing], ends: Positions | None) -> dict[str, Waiting]:
        """Give what waits for each stream; raises KafkaProblem."""
        if self.kafka is None:
            return {}
        topics, _ = resolve_topics(self.contracts, self.kafka)
        if ends is None:
            ends = end_offsets(self.kafka, partitions_of(self.kafka, topics))
        begins = self._begins(stands, topics, ends)
        lagging = {
            contract.stream: {p: at for p, at in begins[contract.stream].items() if at < ends[p]}
            for contract in self.contracts
        }
        oldest = self._oldest({pair for own in lagging.values() for pair in own.items()}, ends)
        return {stream: _waiting(own, ends, oldest) for stream, own in lagging.items()}

    def _begins(self, stands: Mapping[str, Standing], topics: Sequence[str], ends: Positions) -> dict[str, Positions]:
        """Give the next offset of each stream in each partition that it reads."""
        assert self.kafka is not None
        own = {c.stream: [p for p in ends if reads(c, p[0])] for c in self.contracts}
        unknown = {p for stream, partitions in own.items() for p in partitions if p not in stands[stream].progress}
        earliest = earliest_offsets(self.kafka, unknown) if unknown else {}
        ids = topic_ids(self.kafka, topics) if unknown else {}
        return {
            contract.stream: {
                p: at
                for p in own[contract.stream]
                if (at := self._next(contract, stands[contract.stream], p, earliest, ids)) is not None
            }
            for contract in self.contracts
        }

    def _next(
        self, contract: Contract, standing: Standing, partition: Partition, earliest: Positions, ids: Mapping[str, str]
    ) -> int | None:
        """Give the next offset in one partition; None where a stream has not been told yet where it begins."""
        if partition in standing.progress:
            return standing.progress[partition] + 1
        if contract.start is Start.EARLIEST:
            return earliest[partition]
        begins = read_begins(self.lake, self.pipeline, contract.stream, ids)
        return None if begins is None else begins.get(partition, earliest[partition])

    def _oldest(self, pairs: set[tuple[Partition, int]], ends: Positions) -> dict[tuple[Partition, int], int | None]:
        """Give when the records at positions came to Kafka; streams may stand at several in one partition."""
        assert self.kafka is not None
        found: dict[tuple[Partition, int], int | None] = {}
        until = time.monotonic() + PEEK_SECONDS
        while pairs and (seconds := until - time.monotonic()) > 0:
            positions = dict(sorted(pairs))
            for partition, timestamp in oldest_from(self.kafka, positions, ends, seconds).items():
                found[partition, positions[partition]] = timestamp
            pairs = pairs - set(positions.items())
        return found


def _waiting(own: Positions, ends: Positions, oldest: Mapping[tuple[Partition, int], int | None]) -> Waiting:
    """Give what waits at positions; those after which nothing is readable do not count."""
    known = {pair: oldest[pair] for pair in own.items() if pair in oldest}
    waiting = sum(ends[p] - at for p, at in own.items() if known.get((p, at), 0) is not None)
    return Waiting(waiting, min((at_ms for at_ms in known.values() if at_ms is not None), default=None))


@dataclass(frozen=True)
class Looked:
    """What one look found; `failure` says why it found nothing, or did not keep it."""

    healths: Mapping[str, Health] = field(default_factory=dict)
    failure: str = ""


class FreshnessWatch:
    """Judges and records now and then, in a thread of its own: it never raises and never makes its caller wait."""

    def __init__(self, freshness: Freshness, by: str, every_seconds: float) -> None:
        self._freshness = freshness
        self._by = by
        self._every = every_seconds
        self._due = time.monotonic()
        self._thread: threading.Thread | None = None
        self._news: Looked | None = None

    def look(self, job: Callable[[], Job]) -> Looked | None:
        """Begin a look when one is due, which asks how the job is; give what the last one found, once."""
        news = None
        if self._thread is not None and not self._thread.is_alive():
            news, self._news, self._thread = self._news, None, None
        if self._thread is None and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._every
            self._thread = threading.Thread(target=self._look, args=(job,), name="freshness", daemon=True)
            self._thread.start()
        return news

    def _look(self, job: Callable[[], Job]) -> None:
        found: Mapping[str, Health] = {}
        try:
            evaluations = self._freshness.evaluate(job())
            found = {one.stream: one.health for one in evaluations}
            self._freshness.record(evaluations, self._by)
        except Exception as error:  # noqa: BLE001 (whatever fails in here is no reason to stop a job)
            self._news = Looked(found, f"{type(error).__name__}: {error}")
        else:
            self._news = Looked(found)

"""End to end: from Kafka topics to committed Delta rows, by the real job on the real cluster."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contracts.load import load_contract
from contracts.model import Contract
from jobs.launch import Launch, Request
from jobs.stack import Stack
from tests.bench.contract import keys, write_contracts, write_keys
from tests.bench.generate import Load, held, load, pace
from tests.bench.processes import FLINK, Processes
from tests.bench.timeline import commits, latencies, totals
from udfs.keys import pinned_keys

POLL_SECONDS = 1.0
PIPELINE = "bench"
READY = 20_000  # records that a job commits before it is shown a backlog


@dataclass(frozen=True)
class Run:
    """What one run reached. Rates are records/s; steady: from the first commit to the last but one."""

    records: int
    steady: float
    whole: float  # from the first commit to the last
    startup_seconds: float  # from the submission to the first commit
    steady_seconds: float
    cores: Mapping[str, float]  # during the steady part
    peaks: Mapping[str, int]  # bytes
    memory: Sequence[int]  # TaskManager and Python workers together, sample by sample
    commits: int


@dataclass(frozen=True)
class Backlog:
    """How a job that stood ready took records that could all be read at one moment."""

    rate: float  # records/s, from that moment to the last commit
    cpu: float  # microseconds a record, of TaskManager and workers
    peak: int  # bytes at most, of TaskManager and workers together
    startup_seconds: float  # from the submission to the first commit of other records


@dataclass(frozen=True)
class Latency:
    """How long rows took from Kafka to a commit, in seconds."""

    rate: float  # records/s written
    rows: int
    p50: float
    p99: float
    most: float


@dataclass(frozen=True)
class Pipeline:
    """One pipeline over topics that exist, with a lake of its own."""

    stack: Stack
    home: Path
    load: Load
    registry: str | None = None
    commit_seconds: int = 5
    lake: str | None = None  # default: a fresh local folder
    tables: tuple[str, ...] = ("quarantine", "changes")
    prepare: Callable[[Contract, Path], None] | None = None  # fills tables before the job runs
    aggregates: Sequence[Mapping[str, Any]] = ()

    @property
    def streams(self) -> list[tuple[str, str]]:
        """Give (stream, topic) of each."""
        return [(topic.replace("-", "_").replace(".", "_"), topic) for topic in self.load.topics]

    @property
    def lake_folder(self) -> Path:
        """Give the local lake."""
        return self.home / "lake"

    def launch(self) -> Launch:
        """Write contracts and keys, and make the job ready."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        made = write_contracts(self.home / "contracts", self.streams, self.load.encoding, self.registry, self.tables,
                               self.aggregates)  # fmt: skip
        for contract in made:
            if self.prepare:
                self.prepare(contract, self.lake_folder)
        return Launch(
            Request(
                contracts=self.home / "contracts",
                kafka=self.stack.kafka_address,
                lake=self.lake or str(self.lake_folder),
                cluster=self.stack.flink_address,
                keys=write_keys(self.home / "keys"),
                pipeline=PIPELINE,
                commit_seconds=self.commit_seconds,
            )
        )

    def pins(self) -> Mapping[str, str]:
        """Give the keys that the masks of the (first) stream are pinned to."""
        return pinned_keys(load_contract(self.home / "contracts" / f"{self.streams[0][0]}.odcs.yaml"), keys())

    def anchors(self) -> list[Path]:
        """Give the folder of each stream's last table."""
        last = "" if "current" in self.tables else "_changes"
        return [self.lake_folder / f"{stream}{last}" for stream, _ in self.streams]

    @contextmanager
    def running(self, launch: Launch | None = None) -> Iterator[Launch]:
        """Run the job during the block."""
        launch = launch or self.launch()
        job = launch.submit()
        try:
            yield launch
        finally:
            launch.cluster.cancel(job)


def throughput(pipeline: Pipeline, records: int, timeout_seconds: float = 900.0) -> Run:
    """Run the job over loaded topics until all their records are in the tables."""
    with Processes(pipeline.stack) as processes:
        submitted_wall, submitted = time.time(), time.monotonic()
        with pipeline.running() as launch:
            _await(pipeline, launch, records, timeout_seconds)
    points = merged([totals(commits(anchor)) for anchor in pipeline.anchors()])
    first, last = points[0], points[-1]
    # Within a burst of commits of many streams every point counts; the last interval is not a full one.
    inner = [point for point in points if point[0] < last[0] - pipeline.commit_seconds * 0.6] or points[:1]
    end = inner[-1]
    shift = submitted - submitted_wall
    return Run(
        records=records,
        steady=(end[1] - first[1]) / max(end[0] - first[0], 1e-9) if end is not first else float("nan"),
        whole=(last[1] - first[1]) / max(last[0] - first[0], 1e-9),
        startup_seconds=first[0] - submitted_wall,
        steady_seconds=end[0] - first[0],
        cores=processes.cores(first[0] + shift, end[0] + shift),
        peaks=processes.peaks(),
        memory=processes.flink_memory(),
        commits=len(points),
    )


def backlog(pipeline: Pipeline, records: int, timeout_seconds: float = 900.0) -> Backlog:
    """Let the job start and commit a few records, its indexes made; then show it many, and wait until it has them."""
    load(pipeline.load, READY)
    launch = pipeline.launch()
    with held(pipeline.load, records, READY) as show, Processes(pipeline.stack) as processes:
        submitted = time.time()
        with pipeline.running(launch):
            _await(pipeline, launch, READY, timeout_seconds)
            begun, clock = show(), time.monotonic() - time.time()
            _await(pipeline, launch, READY + records, timeout_seconds)
    points = merged([totals(commits(anchor)) for anchor in pipeline.anchors()])
    first, ended = points[0][0], next(at for at, total in points if total >= READY + records)
    used = processes.cores(begun + clock, ended + clock)
    return Backlog(
        rate=records / (ended - begun),
        cpu=sum(used[role] for role in FLINK) * (ended - begun) / records * 1e6,
        peak=processes.peaks()["together"],
        startup_seconds=first - submitted,
    )


def merged(tables: Sequence[Sequence[tuple[float, int]]]) -> list[tuple[float, int]]:
    """Give (time, records in all tables) after each commit of any table."""
    events = sorted((at, table, total) for table, points in enumerate(tables) for at, total in points)
    standing: dict[int, int] = {}
    points = []
    for at, table, total in events:
        standing[table] = total
        points.append((at, sum(standing.values())))
    return points


def committed(pipeline: Pipeline) -> int:
    """Give how many records the tables hold or have counted."""
    return sum(points[-1][1] for anchor in pipeline.anchors() if (points := totals(commits(anchor))))


def check_running(launch: Launch) -> None:
    """Raise when the job has failed or keeps restarting."""
    job = launch.cluster.running(f"tidegate {PIPELINE}")
    if job is None:
        raise RuntimeError("the job has ended: see the logs in the stack's home folder")
    reason = launch.cluster.why_failed(job)
    if reason:
        raise RuntimeError(f"the job restarted: {reason}")


def latency(pipeline: Pipeline, per_second: int, seconds: float, settle_seconds: float = 15.0) -> Latency:
    """Write so many records a second while the job runs, and see when each row could be read."""
    pipeline.load.create()
    with pipeline.running() as launch:
        before = int(per_second * settle_seconds)
        pace(pipeline.load, per_second, settle_seconds)  # the job starts, and the first commits create the tables
        _await(pipeline, launch, before)
        since = time.time()
        rate = pace(pipeline.load, per_second, seconds, first=before)
        _await(pipeline, launch, before + int(per_second * seconds))
    found = np.concatenate([latencies(anchor, since) for anchor in pipeline.anchors()])
    p50, p99 = np.percentile(found, [50, 99])
    return Latency(rate, len(found), float(p50), float(p99), float(found.max()))


def _await(pipeline: Pipeline, launch: Launch, records: int, timeout_seconds: float = 180.0) -> None:
    """Wait until the tables hold so many records."""
    until = time.monotonic() + timeout_seconds
    while (have := committed(pipeline)) < records:
        check_running(launch)
        if time.monotonic() > until:
            raise TimeoutError(f"{have:,} of {records:,} records were committed within {timeout_seconds:.0f} s")
        time.sleep(POLL_SECONDS)


def memory(pipeline: Pipeline, per_second: int, seconds: float, settle_seconds: float = 30.0) -> list[int]:
    """Give the memory (bytes) of TaskManager and workers, sample by sample, while records come in at an even pace."""
    pipeline.load.create()
    with pipeline.running():
        pace(pipeline.load, per_second, settle_seconds)
        with Processes(pipeline.stack) as processes:
            pace(pipeline.load, per_second, seconds, first=int(per_second * settle_seconds))
    return processes.flink_memory()

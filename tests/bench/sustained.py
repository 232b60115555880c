"""An even pace for minutes, with maintenance: whether commits, files, reading and memory stay as they are."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import duckdb
import httpx
import numpy as np

from lakehouse.lake import Lake
from lakehouse.read import connect
from tests.bench.endtoend import PIPELINE, Pipeline
from tests.bench.generate import pace
from tests.bench.many_tables import WORKERS
from tests.bench.processes import FLINK, Processes
from tests.bench.state import read_seconds, standing
from tests.bench.timeline import Longs, commits, waits

PARTS = 4
LOOK_SECONDS = 10.0  # at tables
POLL_SECONDS = 1.0  # at the commits' metric
SETTLE_SECONDS = 30.0
SAMPLED = 20  # every so-manieth row tells how long it waited


@dataclass(frozen=True)
class Part:
    """One part of the run; seconds, bytes, medians unless said otherwise."""

    commit_p50: float
    commit_p99: float
    wait_p50: float  # of rows, from Kafka to a commit
    wait_p99: float
    files: int
    dead: float
    rows: int  # of current
    read: float
    memory: float
    anonymous: float  # of the workers, what no file backs


@dataclass(frozen=True)
class _Look:
    at: float
    files: int
    dead: float
    rows: int
    read: float


@dataclass
class _Watch:
    """Looks at the tables and the job's metric from a thread, while its block runs."""

    pipeline: Pipeline
    say: Callable[[str], None]
    looks: list[_Look] = field(default_factory=list)
    commits: list[tuple[float, float]] = field(default_factory=list)  # when, seconds

    def __enter__(self) -> _Watch:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._look, self._poll)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _look(self) -> None:
        lake, stream = Lake.open(str(self.pipeline.lake_folder)), self.pipeline.streams[0][0]
        tables = [stream, *([f"{stream}_history"] if "history" in self.pipeline.tables else [])]
        while not self._stop.wait(LOOK_SECONDS):
            with suppress(duckdb.Error, OSError):  # a file went away between the log and the query
                seen = [standing(lake, table) for table in tables]
                read = read_seconds(lake, stream)
                files, dead = sum(one[0] for one in seen), max(one[1] for one in seen)
                self.looks.append(_Look(time.time(), files, dead, seen[0][2], read))
                self.say(f"{files} files, {dead:.0%} dead, {seen[0][2]:,} rows, read in {read:.2f} s")

    def _poll(self) -> None:
        metric = CommitSeconds(self.pipeline.stack.flink_address)
        while not self._stop.wait(POLL_SECONDS):
            with suppress(httpx.HTTPError, KeyError, ValueError):
                found = metric.newest()
                if found is not None and (not self.commits or self.commits[-1][1] != found):
                    self.commits.append((time.time(), found))


class CommitSeconds:
    """Reads how long the newest commit took from the running job's metrics."""

    def __init__(self, flink: str) -> None:
        self._address = f"http://{flink}/jobs"
        self._path: str | None = None

    def newest(self) -> float | None:
        """Give seconds; None when no commit was reported yet."""
        if self._path is None:
            self._path = self._found()
        if self._path is None:
            return None
        values = [float(one["max"]) / 1000 for one in _get(self._path)]
        return max(values, default=None)

    def _found(self) -> str | None:
        for job in _get(self._address + "/overview")["jobs"]:
            if job["state"] == "RUNNING" and job["name"].endswith(PIPELINE):
                for vertex in _get(f"{self._address}/{job['jid']}")["vertices"]:
                    path = f"{self._address}/{job['jid']}/vertices/{vertex['id']}/subtasks/metrics"
                    names = [m["id"] for m in _get(path) if re.search(r"commit_duration_ms$", m["id"])]
                    if names:
                        return f"{path}?get={','.join(names)}"
        return None


def measure(pipeline: Pipeline, per_second: int, seconds: float, say: Callable[[str], None]) -> list[Part]:
    """Give the parts of a run at an even pace, oldest first."""
    pipeline.load.create()
    with pipeline.running():
        pace(pipeline.load, per_second, SETTLE_SECONDS)
        with Processes(pipeline.stack) as processes, _Watch(pipeline, say) as watch:
            begun, shift = time.time(), time.time() - time.monotonic()
            kept = pace(pipeline.load, per_second, seconds, first=int(per_second * SETTLE_SECONDS))
            ended = time.time()
        say(f"{kept:,.0f} records/s written")
    bounds = np.linspace(begun, ended, PARTS + 1).tolist()
    waited = _waits(pipeline)
    return [_part(watch, processes, waited, shift, low, high) for low, high in pairwise(bounds)]


def _part(  # noqa: PLR0917 (what was seen, and the part of it)
    watch: _Watch, processes: Processes, waited: tuple[Any, Any], shift: float, low: float, high: float
) -> Part:
    looks = [look for look in watch.looks if low <= look.at < high]
    commit = [seconds for moment, seconds in watch.commits if low <= moment < high]
    samples = [sample for sample in processes.samples if low <= sample.at + shift < high]
    return Part(
        *_percentiles(commit),
        *_percentiles(waited[1][(waited[0] >= low) & (waited[0] < high)]),
        int(_median([look.files for look in looks])),
        _median([look.dead for look in looks]),
        int(_median([look.rows for look in looks])),
        _median([look.read for look in looks]),
        _median([sum(sample.resident.get(role, 0) for role in FLINK) for sample in samples]),
        _median([sample.resident.get(WORKERS, 0) - sample.mapped.get(WORKERS, 0) for sample in samples]),
    )


def _waits(pipeline: Pipeline) -> tuple[Any, Any]:
    """Give when some of the rows reached Kafka (seconds since the epoch), and how long they waited for their commit."""
    stream, topic = pipeline.streams[0]
    with connect(Lake.open(str(pipeline.lake_folder))) as duck:
        rows = duck.execute(
            f"SELECT _partition, _offset, epoch_us(_kafka_time) FROM {stream}_changes WHERE _offset % {SAMPLED} = 0"
        ).fetchnumpy()
    partitions, offsets, micros = map(np.asarray, rows.values())
    found, result = commits(pipeline.lake_folder / stream), np.full(len(offsets), np.nan)
    for partition in range(pipeline.load.partitions):
        own = np.flatnonzero(partitions == partition)
        result[own] = waits(found, (topic, partition), offsets[own], _seconds(micros[own]))
    return _seconds(micros), result


def _seconds(micros: Longs) -> Any:
    return np.asarray(micros) / 1e6


def _get(url: str) -> Any:
    return httpx.get(url, timeout=5.0, trust_env=False).raise_for_status().json()


def _percentiles(values: Sequence[float] | Any) -> tuple[float, float]:
    if not len(values):
        return float("nan"), float("nan")
    p50, p99 = np.nanpercentile(values, [50, 99])
    return float(p50), float(p99)


def _median(values: Sequence[float] | Any) -> float:
    return float(np.median(values)) if len(values) else 0.0

"""Many filled tables in one job: how long a start takes without and with snapshots of the indexes, and the memory."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from contracts.model import Contract
from jobs.launch import Launch
from lakehouse.merge.index_snapshot import FOLDER as SNAPSHOTS
from tests.bench.endtoend import POLL_SECONDS, Pipeline, check_running
from tests.bench.generate import load
from tests.bench.processes import Processes
from tests.bench.state import fill
from tests.bench.timeline import commits, totals

WORKERS = "python workers"
SNAPSHOT_SECONDS = 120.0  # until all indexes must have been written


@dataclass(frozen=True)
class Start:
    """One start of the job, and the load it then took; seconds from the submission."""

    name: str
    first_seconds: float  # until a table had a new commit
    all_seconds: float  # until all of them had
    rate: float  # changes/s, from the first commit to the last
    memory: int  # bytes at most: TaskManager and workers
    anonymous: int  # of the workers alone, what no file backs


class Filler:
    """Fills the tables of the first stream, and gives the others the same files."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._first: str | None = None

    def __call__(self, contract: Contract, lake: Path) -> None:
        """Fill the state tables of one stream."""
        if self._first is None:
            self._first = contract.stream
            fill(contract, lake, self._count)
            return
        for folder in [path.parent for path in lake.rglob("_delta_log")]:
            inner = folder.relative_to(lake)
            if inner.name == self._first or inner.name.startswith(f"{self._first}_"):
                other = contract.stream + inner.name.removeprefix(self._first)
                shutil.copytree(folder, lake / inner.parent / other, copy_function=os.link)


def measure(pipeline: Pipeline, records: int, say: Callable[[str], None]) -> list[Start]:
    """Start the job on filled tables without snapshots of their indexes, then with; each takes half of the records."""
    load(pipeline.load, records // 2)
    launch = pipeline.launch()
    say("tables filled")
    starts = [_start("cold", pipeline, launch, records // 2, wait_snapshots=True)]
    say(f"cold: all committed after {starts[0].all_seconds:.1f} s")
    load(pipeline.load, records // 2, records // 2)
    return [*starts, _start("with snapshots", pipeline, launch, records // 2 * 2)]


def _start(name: str, pipeline: Pipeline, launch: Launch, records: int, *, wait_snapshots: bool = False) -> Start:
    before = [totals(commits(anchor)) for anchor in pipeline.anchors()]
    with Processes(pipeline.stack) as processes:
        submitted = time.time()
        job = launch.submit()
        try:
            points = _await(pipeline, launch, records, [len(own) for own in before])
            if wait_snapshots:
                _await_snapshots(pipeline)
        finally:
            launch.cluster.cancel(job)
    firsts = sorted(own[0][0] for own in points)
    seconds = max(own[-1][0] for own in points) - firsts[0]
    done = sum(own[-1][1] for own in points) - sum(own[-1][1] for own in before if own)
    return Start(
        name,
        firsts[0] - submitted,
        firsts[-1] - submitted,
        done / max(seconds, 1e-9),
        processes.peaks()["together"],
        max(processes.anonymous(WORKERS)),
    )


def _await(
    pipeline: Pipeline, launch: Launch, records: int, before: Sequence[int], timeout_seconds: float = 600.0
) -> list[list[tuple[float, int]]]:
    """Wait until the tables hold so many records; give the points of each table since it had so many commits."""
    until = time.monotonic() + timeout_seconds
    while True:
        points = [totals(commits(anchor)) for anchor in pipeline.anchors()]
        have = sum(own[-1][1] for own in points if own)
        if have >= records and all(len(own) > held for own, held in zip(points, before, strict=True)):
            return [own[held:] for own, held in zip(points, before, strict=True)]
        check_running(launch)
        if time.monotonic() > until:
            raise TimeoutError(f"{have:,} of {records:,} records were committed within {timeout_seconds:.0f} s")
        time.sleep(POLL_SECONDS)


def _await_snapshots(pipeline: Pipeline) -> None:
    """Wait until the index of each stream's current table has been written."""
    folders = [pipeline.lake_folder / SNAPSHOTS / stream for stream, _ in pipeline.streams]
    until = time.monotonic() + SNAPSHOT_SECONDS
    while not all(any(folder.glob("*.idx")) for folder in folders) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)

"""Follow a pipeline from outside: how far its tables are, when it is caught up, and what to do when the job is gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from jobs.cluster import FINISHED
from jobs.errors import ClusterUnreachable, JobFailed
from jobs.kafka.offsets import readable_between
from jobs.launch import Launch
from jobs.routing import reads
from lakehouse.parking import Parking
from lakehouse.standing import standing_of

POLL_SECONDS = 0.5
ASK_SECONDS = 5.0  # between two questions for the job's failures
PATIENCE_SECONDS = 180.0  # a job that keeps failing is given up when nothing was committed for so long
LONGEST_BACKOFF_SECONDS = 60.0

Partition = tuple[str, int]  # topic, partition


def follow(
    launch: Launch,
    job_id: str,
    console: Console,
    *,
    until_caught_up: bool,
    supervise: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Stay with a job: show progress, stop it once caught up, submit it again when the cluster lost it.

    Gives the job that ended the watch, how often it was submitted again, and which streams are parked. Raises
    JobFailed with the cluster's reason when the job ended and is not supervised.
    """
    catching = CatchUp(launch)
    troubles = Troubles(console, give_up=not supervise)
    submitted_again, backoff = 0, 1.0
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not until_caught_up) as bar:
        task = bar.add_task("records committed", total=catching.total)
        while True:
            bar.update(task, completed=catching.done())
            if until_caught_up and catching.complete():
                launch.cluster.cancel(job_id)
                break
            troubles.look(launch, job_id, bar.tasks[0].completed)
            reason = _ended(launch, job_id)
            if reason is not None:
                if not supervise:
                    raise JobFailed(f"job {job_id} ended: {reason}")
                console.print(f"the cluster lost the job ({reason}); submitting it again", highlight=False)
                sleep(backoff)
                backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)
                again = _submit_again(launch, console)
                if again is not None:
                    job_id, backoff, submitted_again = again, 1.0, submitted_again + 1
            sleep(POLL_SECONDS)
    return {"job": job_id, "submitted_again": submitted_again, "parked": sorted(catching.parked())}


class Troubles:
    """Tells of failures that the cluster recovers from by itself, each once; gives up when they stop all progress."""

    def __init__(self, console: Console, *, give_up: bool) -> None:
        self._console = console
        self._give_up = give_up
        self._asked = self._moved = time.monotonic()
        self._done = -1.0
        self._told = ""

    def look(self, launch: Launch, job_id: str, done: float) -> None:
        """Ask the cluster now and then; raises JobFailed when the job fails again and again without progress."""
        now = time.monotonic()
        if done != self._done:
            self._done, self._moved = done, now
        if now - self._asked < ASK_SECONDS:
            return
        self._asked = now
        with suppress(ClusterUnreachable):
            failure = launch.cluster.why_failed(job_id)
            if failure and failure != self._told:
                self._told = failure
                self._console.print(f"the job failed and starts again: {failure}", highlight=False, markup=False)
        if self._told and self._give_up and now - self._moved > PATIENCE_SECONDS:
            launch.cluster.cancel(job_id)
            raise JobFailed(f"job {job_id} fails again and again, nothing was committed for a while: {self._told}")


def _ended(launch: Launch, job_id: str) -> str | None:
    """Say why the job no longer runs; None while it does."""
    try:
        state = launch.cluster.state(job_id)
        if state is None:
            return "the cluster does not know it"
        if state in FINISHED:
            return launch.cluster.why_failed(job_id) or state.lower()
    except ClusterUnreachable as error:
        return str(error)
    return None


def _submit_again(launch: Launch, console: Console) -> str | None:
    """Submit the job again from the Delta log; None when the cluster is still away."""
    try:
        running = launch.cluster.running(f"tidegate {launch.request.pipeline}")
        return running or launch.submit()
    except ClusterUnreachable as error:
        console.print(str(error), highlight=False)
        return None


class CatchUp:
    """Whether every stream has reached, in every partition, the end that was seen at the start."""

    def __init__(self, launch: Launch) -> None:
        if launch.plan is None:
            raise ValueError("submit first: the ends are read at the start")
        self._launch = launch
        self._plan = launch.plan
        self._parking = Parking(launch.lake, launch.request.pipeline)
        self._complete: set[tuple[str, Partition]] = set()
        self._wanted = [
            (contract, partition, self._plan.offsets[partition], end)
            for contract in launch.contracts
            for partition, end in sorted(self._plan.ends.items())
            if reads(contract, partition[0]) and partition in self._plan.offsets
        ]
        self._progress: Mapping[str, Mapping[Partition, int]] = {}

    @property
    def total(self) -> int:
        """Offsets to go, over all streams, at the start."""
        return sum(max(end - start, 0) for _, _, start, end in self._wanted)

    def done(self) -> int:
        """Offsets gone so far; reads the tables' progress."""
        self._progress = {
            contract.stream: standing_of(self._launch.lake, contract, self._launch.request.pipeline).progress
            for contract in self._launch.contracts
        }
        return sum(
            max(min(self._progress[contract.stream].get(partition, start - 1) + 1, end) - start, 0)
            for contract, partition, start, end in self._wanted
        )

    def complete(self) -> bool:
        """Say whether nothing readable is left below the ends, parked streams aside (as of the last done())."""
        parked = self.parked()
        return all(
            contract.stream in parked or self._reached(contract.stream, partition, start, end)
            for contract, partition, start, end in self._wanted
        )

    def parked(self) -> set[str]:
        """Give the names of the parked streams."""
        return {parked.stream for parked in self._parking.all()}

    def _reached(self, stream: str, partition: Partition, start: int, end: int) -> bool:
        """The last offsets may be transaction markers, which no consumer sees: then Kafka is asked, once."""
        if (stream, partition) in self._complete:
            return True
        reached = max(self._progress[stream].get(partition, -1), start - 1)
        if reached + 1 >= end or not readable_between(self._launch.kafka, *partition, reached, end):
            self._complete.add((stream, partition))
            return True
        return False

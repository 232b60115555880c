"""Follow a pipeline from outside: how far its tables are, when it is caught up, and what to do when the job is gone."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from contracts.model import Contract
from jobs.cluster import FINISHED
from jobs.errors import ClusterUnreachable, JobFailed, JobRefused, KafkaProblem
from jobs.freshness import SUPERVISOR, Freshness, FreshnessWatch, job_of
from jobs.kafka.offsets import readable_between
from jobs.launch import Launch
from jobs.routing import reads
from lakehouse.errors import RetryableError
from lakehouse.freshness import Job
from lakehouse.parking import Parking
from lakehouse.standing import Standing, standing_of

POLL_SECONDS = 0.5
ASK_SECONDS = 5.0  # between two questions for the job's failures
PATIENCE_SECONDS = 180.0  # a job that keeps failing is given up when nothing was committed for so long
LONGEST_BACKOFF_SECONDS = 60.0
PASSING = (RetryableError, KafkaProblem)  # the store or the brokers are away: the job waits for them, and so do we
# What the cluster's own restart cannot mend, because its checkpoint has what is wrong: only a start from the Delta log.
NEEDS_NEW_START = re.compile(r"(GapFound|SegmentMissing|LanesOver|NoOffsetForPartition\w*)\b")

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
    """Stay with a job: show progress and troubles, stop it once caught up, submit it again when that is what it needs.

    It is submitted again when it can only go on from the Delta log, and with `supervise` also when the cluster lost it.
    Gives the job that ended the watch, how often it was submitted again, and which streams are parked. Raises
    JobFailed with the cluster's reason when the job ended and is not supervised.
    """
    catching = CatchUp(launch)
    troubles = Troubles(console, give_up=not supervise)
    fresh = _freshness(launch) if supervise else None
    submitted_again, backoff = 0, 1.0
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not until_caught_up) as bar:
        task = bar.add_task("records committed", total=catching.total)
        while True:
            try:
                bar.update(task, completed=catching.done())
                over = until_caught_up and catching.complete()
                troubles.parked(catching.reasons())
                if over:
                    launch.cluster.cancel(job_id)
                    break
            except PASSING as error:
                troubles.tell(str(error))
            reason = troubles.look(launch, job_id, bar.tasks[0].completed)
            lost = _ended(launch, job_id)
            if fresh is not None:  # the job watches as well, but not while it is gone
                fresh.look(partial(_job, launch, job_id))
            if lost is not None and not supervise:
                raise JobFailed(f"job {job_id} ended: {lost}")
            if reason is not None or lost is not None:
                again = _submit_again(launch, job_id, lost or f"it needs a new start: {reason}", console)
                if again is None:
                    sleep(backoff)
                    backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)
                else:
                    job_id, backoff, submitted_again = again, 1.0, submitted_again + 1
                    troubles.new_job()
            sleep(POLL_SECONDS)
    launch.finish_lanes()
    return {"job": job_id, "submitted_again": submitted_again, "parked": sorted(catching.reasons())}


def _freshness(launch: Launch) -> FreshnessWatch:
    request = launch.request
    freshness = Freshness(launch.contracts, launch.lake, request.pipeline, launch.kafka)
    return FreshnessWatch(freshness, SUPERVISOR, request.freshness_seconds)


def _job(launch: Launch, job_id: str) -> Job:
    try:
        return job_of(launch.cluster.state(job_id))
    except ClusterUnreachable:
        return Job.DOWN


class Troubles:
    """Tells of what is wrong, each once; gives up when failures stop all progress."""

    def __init__(self, console: Console, *, give_up: bool) -> None:
        self._console = console
        self._give_up = give_up
        self._asked = self._moved = time.monotonic()
        self._done = -1.0
        self._failed = ""  # the job's last failure
        self._told: set[str] = set()

    def tell(self, sentence: str) -> None:
        """Print a sentence, unless it was printed before."""
        if sentence not in self._told:
            self._told.add(sentence)
            self._console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def parked(self, reasons: Mapping[str, str]) -> None:
        """Tell of streams that stand still."""
        for stream, reason in reasons.items():
            self.tell(f"{stream} stands still, other streams go on: {reason}")

    def new_job(self) -> None:
        """Forget the failures of a job that was replaced."""
        self._failed = ""
        self._asked = self._moved = time.monotonic()

    def look(self, launch: Launch, job_id: str, done: float) -> str | None:
        """Ask the cluster now and then; give the failure that only a start from the Delta log mends.

        Raises JobFailed when the job fails again and again without progress.
        """
        now = time.monotonic()
        if done != self._done:
            self._done, self._moved = done, now
        if now - self._asked < ASK_SECONDS:
            return None
        self._asked = now
        with suppress(ClusterUnreachable):
            self._failed = launch.cluster.why_failed(job_id) or ""
        if not self._failed:
            return None
        if NEEDS_NEW_START.search(self._failed):
            return self._failed
        self.tell(f"the job failed and starts again: {self._failed}")
        if self._give_up and now - self._moved > PATIENCE_SECONDS:
            launch.cluster.cancel(job_id)
            raise JobFailed(f"job {job_id} fails again and again, nothing was committed for a while: {self._failed}")
        return None


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


def _submit_again(launch: Launch, job_id: str, why: str, console: Console) -> str | None:
    """Submit the job again from the Delta log, in place of what is left of it; None when that is not possible now."""
    console.print(f"the job does not go on by itself ({why}); submitting it again", highlight=False, markup=False)
    try:
        running = launch.cluster.running(f"tidegate {launch.request.pipeline}")
        if running == job_id:
            launch.cluster.cancel(job_id)
        elif running is not None:
            return running
        return launch.submit()
    except (ClusterUnreachable, JobRefused, *PASSING) as error:
        console.print(str(error), highlight=False, markup=False)
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
            contract.stream: self._standing(contract).progress_in(self._plan.epochs.get(contract.stream, {}))
            for contract in self._launch.contracts
        }
        return sum(
            max(min(self._progress[contract.stream].get(partition, start - 1) + 1, end) - start, 0)
            for contract, partition, start, end in self._wanted
        )

    def _standing(self, contract: Contract) -> Standing:
        return standing_of(self._launch.lake, contract, self._launch.request.pipeline)

    def complete(self) -> bool:
        """Say whether nothing readable is left below the ends, parked streams aside (as of the last done())."""
        parked = self.reasons()
        return all(
            contract.stream in parked or self._reached(contract.stream, partition, start, end)
            for contract, partition, start, end in self._wanted
        )

    def reasons(self) -> dict[str, str]:
        """Give the parked streams, and why they are."""
        return {parked.stream: parked.reason for parked in self._parking.all()}

    def _reached(self, stream: str, partition: Partition, start: int, end: int) -> bool:
        """The last offsets may be transaction markers, which no consumer sees: then Kafka is asked, once."""
        if (stream, partition) in self._complete:
            return True
        reached = max(self._progress[stream].get(partition, -1), start - 1)
        if reached + 1 >= end or not readable_between(self._launch.kafka, *partition, reached, end):
            self._complete.add((stream, partition))
            return True
        return False

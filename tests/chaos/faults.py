"""What can go wrong in a chaos run. Each fault is one function; the table at the end is the documentation.

A fault does its harm, mends what an operator or a scheduler would mend (starts the dead process again), and says in one
line what it did. It does not wait for the job to recover: that is the schedule's choice.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random

import psutil
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from jobs.errors import TidegateError
from jobs.launch import Launch
from jobs.refinery import refined_at_ms
from lakehouse.errors import LakehouseError
from tests.chaos import clock
from tests.chaos.arena import Arena, Stalled
from tests.chaos.foreign import KEYED, TABLES, foreign_commits
from tests.chaos.indexes import index_damaged
from tests.chaos.inject.sitecustomize import (
    BEFORE_COMMIT,
    BEFORE_PUT,
    ON_TABLES,
    PARQUET_WRITTEN,
    POINTS,
    PUT,
    VECTORS_WRITTEN,
)
from tests.chaos.losses import lost_while_running, lost_while_stopped
from tests.chaos.points import arm, disarm, passed
from tests.chaos.records import PAYMENTS

Fault = Callable[[Arena, Random], str]
HOST_BEHIND_SECONDS = 30.0
STEP_SECONDS = 15.0
MERGED = (*KEYED, f"{PAYMENTS.stream}_per_second", f"{PAYMENTS.stream}_standing")
# Points within the commit of one table -> the tables whose commits pass there.
OF_TABLES = {
    PARQUET_WRITTEN: MERGED,
    VECTORS_WRITTEN: KEYED[:2],  # the memory marks rows as deleted rarely
    BEFORE_PUT: MERGED,
    PUT: MERGED,
}


def busy_worker(arena: Arena, random: Random) -> str:
    """Kill a Python worker while records pour in."""
    arena.flow.hurry(4.0)
    time.sleep(random.uniform(0.5, 3.0))
    return f"worker {_kill_worker(arena, random)} killed"


def idle_worker(arena: Arena, random: Random) -> str:
    """Kill a Python worker while nothing is to be done."""
    arena.flow.pause()
    try:
        arena.level(300.0)
        time.sleep(random.uniform(0.0, 1.0))
        return f"worker {_kill_worker(arena, random)} killed"
    finally:
        arena.flow.resume()


def task_manager(arena: Arena, random: Random) -> str:
    """Kill the TaskManager; its workers die with it when the new one starts."""
    return _restart(arena, "taskmanager", random.uniform(0.0, 2.0))


def job_manager(arena: Arena, random: Random) -> str:
    """Kill the JobManager, which forgets the job; the supervisor submits it again from the Delta log."""
    return _restart(arena, "jobmanager", random.uniform(0.0, 2.0))


def broker(arena: Arena, random: Random) -> str:
    """Kill the broker."""
    return _restart(arena, "broker", random.uniform(0.0, 4.0))


def object_store(arena: Arena, random: Random) -> str:
    """Kill the S3 server."""
    return _restart(arena, "s3", random.uniform(0.0, 4.0))


def killed_at(point: str) -> Fault:
    """Give the fault that kills a worker at a chosen point."""

    def fault(arena: Arena, random: Random) -> str:
        since = len(arena.events())
        arm(arena, point, "kill", stream=random.choice(OF_TABLES[point]) if point in OF_TABLES else None)
        event = passed(arena, point, since)
        return f"worker {event['pid']} killed at {point} of {event['stream']}"

    fault.__doc__ = f"Kill a worker at the point {point}."
    return fault


def slow_commit(arena: Arena, random: Random) -> str:
    """Hold up one stream's commit for longer than several windows, then kill a worker."""
    since = len(arena.events())
    seconds = random.uniform(5.0, 9.0)
    arm(arena, BEFORE_COMMIT, "sleep", seconds=seconds)
    event = passed(arena, BEFORE_COMMIT, since)
    time.sleep(seconds + random.uniform(-2.0, 0.5))
    return f"commit of {event['stream']} held up for {seconds:.1f} s, worker {_kill_worker(arena, random)} killed"


def zombie(arena: Arena, random: Random) -> str:
    """Freeze a worker on a table's snapshot, replace its TaskManager, let the new one commit on, and wake the old one.

    Its commit must lose.
    """
    since, point = len(arena.events()), random.choice(ON_TABLES)
    arm(arena, point, "stop", stream=PAYMENTS.stream)
    event = passed(arena, point, since)
    frozen = event["pid"]
    try:
        arena.stack.kill("taskmanager")
        arena.start_again("taskmanager", sweep=False)
        # The stream may go on without a commit to this table, where a first short batch changes nothing in it.
        arena.until("others commit to the table", lambda: _version(arena, event["table"]) > event["version"], 240.0)
        time.sleep(random.uniform(0.0, 2.0))
        os_process = psutil.Process(frozen)
        os_process.send_signal(signal.SIGCONT)
        outcome = arena.until("the woken worker tries its commit", lambda: _outcome(arena, since, os_process), 60.0)
    finally:
        with suppress(psutil.Error):
            psutil.Process(frozen).kill()
    if outcome == "committed":
        raise Stalled(f"the woken worker {frozen} committed {point}, where others had committed since")
    return f"worker {frozen} frozen {point}, outlived its TaskManager, woken: {outcome}"


def answers_lost(arena: Arena, random: Random) -> str:
    """Cut the answers to commits that the S3 server has made: their writers must find out, and not write them twice."""
    assert arena.proxy is not None
    before = len(arena.proxy.lost)
    arena.proxy.lose(random.randint(1, 6), f"tables/{random.choice(TABLES)}")
    try:
        arena.until("a commit's answer is lost", lambda: len(arena.proxy.lost) > before, 120.0)  # type: ignore[union-attr]
        arena.moving()
    finally:
        arena.proxy.lose(0)
    return f"answers to commits lost: {', '.join(arena.proxy.lost[before:])}"


def host_behind(arena: Arena, random: Random) -> str:
    """Kill the TaskManager; the window state is restored on a host whose clock is 30 s behind.

    Windows that are filled from now on fire before those restored.
    """
    with arena.environment(clock.behind(HOST_BEHIND_SECONDS)):
        said = _restart(arena, "taskmanager", random.uniform(0.0, 1.0))
    return said + f" on a host {HOST_BEHIND_SECONDS:.0f} s behind; {_told_late(arena, HOST_BEHIND_SECONDS)}"


def clock_steps_back(arena: Arena, random: Random) -> str:
    """Step the clock of the TaskManager and its workers back while windows are open."""
    file = arena.home / "clock"
    with arena.environment(clock.set_by(file)):
        said = _restart(arena, "taskmanager", random.uniform(0.0, 1.0))
    arena.moving()
    time.sleep(random.uniform(0.0, 2.0))
    clock.step_back(file, STEP_SECONDS)
    return said + f", its clock stepped back by {STEP_SECONDS:.0f} s; {_told_late(arena, STEP_SECONDS)}"


def _told_late(arena: Arena, seconds: float) -> str:
    """Wait for a segment whose name is behind the time at which it was stored: the other clock is in use."""
    since, least = time.time(), (seconds - 3.0) * 1000

    def late() -> str | None:
        with suppress(LakehouseError):
            for path, stored in arena.segments():
                if stored > since and stored * 1000 - refined_at_ms(path) > least:
                    return f"a segment stored {stored - refined_at_ms(path) / 1000:.0f} s after its own time"
        return None

    return str(arena.until("a segment tells the time of the other clock", late, 120.0))


def second_copy(arena: Arena, random: Random) -> str:
    """Run a second copy of the pipeline beside the first, for a while: they race for every commit."""
    launch = Launch(arena.request())
    job = arena.until("a second copy is submitted", lambda: _submitted(launch), 240.0)
    arena.moving()
    time.sleep(random.uniform(2.0, 6.0))
    with suppress(TidegateError):
        launch.cluster.cancel(job)
    return f"job {job} ran beside the first"


def _submitted(launch: Launch) -> str | None:
    with suppress(TidegateError, LakehouseError):  # something may still be down
        return launch.submit()
    return None


def _kill_worker(arena: Arena, random: Random) -> int:
    workers = arena.until("Python workers run", lambda: arena.stack.workers() or None, 60.0)
    chosen: psutil.Process = random.choice(sorted(workers, key=lambda worker: worker.pid))
    with suppress(psutil.NoSuchProcess):
        chosen.kill()
    return chosen.pid


def _restart(arena: Arena, process: str, pause: float) -> str:
    arena.stack.kill(process)
    time.sleep(pause)
    arena.start_again(process)
    return f"{process} killed, started again after {pause:.1f} s"


def _version(arena: Arena, table: str) -> int:
    """Give a table's newest version; -1 while the lake cannot be read."""
    with suppress(DeltaError, OSError):
        return DeltaTable(arena.lake.table_uri(table), storage_options=dict(arena.lake.storage_options)).version()
    return -1


def _outcome(arena: Arena, since: int, process: psutil.Process) -> str | None:
    for event in arena.events()[since:]:
        if event["pid"] == process.pid and "outcome" in event:
            return str(event["outcome"])
    if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
        return "it ended without trying"
    return None


FAULTS: dict[str, Fault] = {
    "busy-worker": busy_worker,
    "idle-worker": idle_worker,
    "taskmanager": task_manager,
    "jobmanager": job_manager,
    "broker": broker,
    "s3": object_store,
    **{point: killed_at(point) for point in POINTS},
    "slow-commit": slow_commit,
    "zombie": zombie,
    "answers-lost": answers_lost,
    "foreign-commits": foreign_commits,
    "index-damaged": index_damaged,
    "second-copy": second_copy,
    "host-behind": host_behind,
    "clock-steps-back": clock_steps_back,
    "lost-while-stopped": lost_while_stopped,
    "lost-while-running": lost_while_running,
}
ONCE = frozenset({"lost-while-stopped", "lost-while-running"})  # afterwards their streams stand still
NEEDS_S3 = frozenset({"s3", "answers-lost"})

__all__ = ["FAULTS", "NEEDS_S3", "ONCE", "disarm"]

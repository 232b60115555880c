"""The live demo: a real PostgreSQL changes while you watch, and at the end the tables are what it holds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from contracts.model import Contract
from jobs.demo import clear_home, new_keys
from jobs.demo_workload import TABLES, DemoWorkload
from jobs.errors import JobFailed, KafkaProblem, TidegateError
from jobs.launch import Launch, Request
from jobs.query import run_query
from jobs.stack import Stack
from jobs.stack.capture import capture
from jobs.stack.jars import PROJECT
from jobs.status import PARKED, read_status
from jobs.verify import verify
from jobs.verify_report import show_verification
from lakehouse.errors import LakehouseError

CONTRACTS = PROJECT / "contracts" / "live"
COMPONENTS = ("postgres", "kafka", "connect", "flink")
PIPELINE, PREFIX = "live", "live"
COMMIT_SECONDS = 1
LOOK_SECONDS = 1.0
CATCH_UP_SECONDS = 180.0
TOPICS_SECONDS = 60.0


def run_live(console: Console, *, home: Path, lake: str | None, seconds: float, contracts: Path = CONTRACTS) -> bool:
    """Run the whole chain for some seconds; give whether every table then equals its source.

    Stops all that it has started, also when it is interrupted.
    """
    home = home.absolute()
    clear_home(home)
    uri = f"{lake.rstrip('/')}/live-{time.strftime('%Y%m%d-%H%M%S')}" if lake else str(home / "lake")
    keys = new_keys(home / "keys")
    console.print("starting PostgreSQL, Kafka, Debezium and Flink", highlight=False)
    with Stack(home, components=COMPONENTS) as stack:
        workload = DemoWorkload(stack.postgres_url)
        workload.create()
        capture(stack, TABLES, prefix=PREFIX)
        launch = Launch(_request(stack, contracts, uri, keys))
        _await_topics(launch)
        job_id = launch.submit()
        console.print(f"dashboard http://{stack.flink_address}/#/job/running/{job_id}", highlight=False)
        with workload:
            _watch(console, launch, workload, seconds)
            workload.stop()
        console.print("" if console.is_terminal else "\n", end="")
        console.print("the database is quiet now; comparing each table with its source", highlight=False)
        results = [_same(console, contract, launch.request, stack.postgres_url) for contract in launch.contracts]
        launch.cluster.cancel(job_id)
    return all(results)


def _request(stack: Stack, contracts: Path, lake: str, keys: Path) -> Request:
    return Request(
        contracts=contracts,
        kafka=stack.kafka_address,
        lake=lake,
        cluster=stack.flink_address,
        keys=keys,
        pipeline=PIPELINE,
        commit_seconds=COMMIT_SECONDS,
    )


def _await_topics(launch: Launch) -> None:
    """Wait for the connector to make the topics: with a table's first row."""
    wanted, until = {topic for contract in launch.contracts for topic in contract.topics}, time.monotonic()
    while missing := wanted - set(launch.kafka.topics()):
        if time.monotonic() - until > TOPICS_SECONDS:
            raise KafkaProblem(f"the connector has made no topic {', '.join(sorted(missing))}: see its log")
        time.sleep(0.5)


def _same(console: Console, contract: Contract, ran: Request, source: str) -> bool:
    found = verify(contract.stream, ran.contracts, ran.lake, source, keys=ran.keys, wait_seconds=CATCH_UP_SECONDS)
    show_verification(found, console)
    return found.comparison.equal


# --- what is seen meanwhile


@dataclass(frozen=True)
class Seen:
    """One stream at one moment."""

    stream: str
    read: int
    applied: int
    quarantined: int
    lag: int  # offsets that are in Kafka and not in the tables
    rows: int | None


def _watch(console: Console, launch: Launch, workload: DemoWorkload, seconds: float) -> None:
    begun = before = time.monotonic()
    last: dict[str, Seen] = {}
    added = False
    with Live(console=console, refresh_per_second=4) as live:
        while (now := time.monotonic()) - begun < seconds or not added:
            workload.check()
            if not added and now - begun > seconds / 2:
                workload.add_column()
                added = True
                console.print("column customers.segment was added", highlight=False)
            seen = _look(launch)
            live.update(_table(seen, last, now - before, f"{now - begun:.0f} of {seconds:.0f} s"))
            last, before = {one.stream: one for one in seen}, now
            time.sleep(max(0.0, LOOK_SECONDS - (time.monotonic() - now)))


def _look(launch: Launch) -> list[Seen]:
    """Read how far each stream is; raises JobFailed when the job or a stream has stopped."""
    request = launch.request
    status = read_status(
        request.contracts, request.lake, request.pipeline, kafka=request.kafka, cluster=request.cluster,
        kafka_config=None,
    )  # fmt: skip
    stopped = [f"{s.stream}: {s.reason}" for s in status.streams if s.state == PARKED]
    if stopped or status.job_state in ("FAILED", "CANCELED", "FINISHED"):
        raise JobFailed(f"the job is {status.job_state}; {'; '.join(stopped) or 'see the dashboard and the logs'}")
    rows = _rows(request.lake, [s.stream for s in status.streams])
    return [
        Seen(
            s.stream, s.counts.get("read", 0), s.counts.get("applied", 0), s.counts.get("quarantined", 0),
            sum(p.lag or 0 for p in s.partitions), n,
        )
        for s, n in zip(status.streams, rows, strict=True)
    ]  # fmt: skip


def _rows(lake: str, streams: Sequence[str]) -> list[int | None]:
    """Count the rows of each current table; None where there is none yet."""
    counted: list[int | None] = []
    for stream in streams:
        counted.append(None)
        with suppress(TidegateError, LakehouseError):
            counted[-1] = int(run_query(f'SELECT count(*) FROM "{stream}"', lake)[1][0][0])
    return counted


def _table(seen: Sequence[Seen], before: dict[str, Seen], seconds: float, title: str) -> Table:
    table = Table("stream", title=title, title_justify="left")
    for name in ("changes/s", "changes", "lag", "rows", "quarantined"):
        table.add_column(name, justify="right")
    for one in seen:
        rate = (one.read - before[one.stream].read) / seconds if one.stream in before else 0.0
        numbers = (one.applied, one.lag, one.rows, one.quarantined)
        table.add_row(one.stream, f"{rate:.0f}", *("-" if n is None else f"{n:,}" for n in numbers))
    return table

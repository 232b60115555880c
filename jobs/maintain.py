"""`tidegate maintain`: the maintenance of a pipeline's tables, once or again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from contracts.durations import parse_duration
from contracts.faults import ContractError
from contracts.model import Contract
from jobs.chosen import load_chosen
from jobs.credentials import lake_options
from jobs.errors import ClusterUnreachable, TidegateError
from jobs.launch import running_job
from lakehouse.errors import LakehouseError
from lakehouse.lake import Lake
from lakehouse.maintenance import (
    Job,
    LakeDone,
    Orders,
    StreamDone,
    TableDone,
    maintain_lake,
    maintain_stream,
    verify_clock,
)

AT_ONCE = 2  # streams: a compaction holds some hundred MB
RETRIED = (TidegateError, LakehouseError, ContractError, OSError)


@dataclass(frozen=True)
class Asked:
    """What a user asks to be maintained."""

    contracts: Path
    lake: str
    pipeline: str
    streams: tuple[str, ...]  # none: all, and what they share
    cluster: str | None
    orders: Orders


@dataclass(frozen=True)
class Round:
    """What one round did."""

    pipeline: str
    dry_run: bool
    job: Job
    streams: tuple[StreamDone, ...]
    shared: LakeDone | None
    failures: tuple[str, ...]  # of streams as a whole
    seconds: float

    @property
    def tables(self) -> list[TableDone]:
        """Give what was done to each table."""
        drift = [self.shared.drift] if self.shared and self.shared.drift else []
        return [*(table for stream in self.streams for table in stream.tables), *drift]

    @property
    def told(self) -> list[str]:
        """Give every failure, as a sentence."""
        shared = self.shared.failures if self.shared else ()
        return [*(f"{t.table}: {said}" for t in self.tables for said in t.failures), *shared, *self.failures]

    def as_dict(self) -> dict[str, Any]:
        """Give the round as plain values."""
        return {**asdict(self), "failed": self.told}


def orders_of(retention: str, *, dry_run: bool) -> Orders:
    """Give what maintenance is to do; raises ValueError for a retention that is none, or too short."""
    return Orders(timedelta(milliseconds=parse_duration(retention)), dry_run)


def maintain(asked: Asked, console: Console) -> Round:
    """Do one round of maintenance; what fails for one table is in what it gives.

    Raises ContractError, TidegateError and LakehouseError when nothing could be begun.
    """
    begun = time.monotonic()
    lake = Lake.open(asked.lake, lake_options())
    chosen = load_chosen(asked.contracts, asked.streams)
    if not asked.orders.dry_run:
        verify_clock(lake, asked.pipeline)
    job = job_of(lake, asked.pipeline, asked.cluster)
    failures: list[str] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("streams maintained", total=len(chosen))

        def one(contract: Contract) -> StreamDone:
            try:
                return maintain_stream(lake, contract, asked.pipeline, asked.orders, job)
            except (LakehouseError, OSError) as error:
                failures.append(f"{contract.stream}: {error}")
                return StreamDone(contract.stream, ())
            finally:
                bar.advance(task)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            streams = tuple(pool.map(one, chosen))
        shared = None if asked.streams else _shared(lake, chosen, asked, failures)
    spent = round(time.monotonic() - begun, 2)
    return Round(asked.pipeline, asked.orders.dry_run, job, streams, shared, tuple(failures), spent)


def maintain_every(seconds: float, asked: Asked, console: Console, show: Callable[[Round], None]) -> None:
    """Maintain again and again, from one begin to the next in so many seconds, until interrupted.

    What fails is told, also when nothing could be begun; the next round tries again.
    """
    while True:
        begun = time.monotonic()
        try:
            show(maintain(asked, console))
        except RETRIED as error:
            console.print(f"[bold red]tidegate:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        time.sleep(max(begun + seconds - time.monotonic(), 1.0))


def job_of(lake: Lake, pipeline: str, cluster: str | None) -> Job:
    """Say whether the pipeline's job runs: by the cluster named, else by the one that it was last submitted to."""
    try:
        return Job.RUNS if running_job(lake, pipeline, cluster) else Job.ENDED
    except ClusterUnreachable:
        return Job.UNKNOWN


def show_round(done: Round, console: Console) -> None:
    """Print what a round did as a table, and what it left to others or could not do as sentences."""
    table = Table("table", "files merged", "files deleted", "log entries deleted", "freed", "checkpoint", "left")
    for one in done.tables:
        files = one.vacuumed.data_files + one.vacuumed.vector_files
        freed = shown_bytes(one.vacuumed.bytes + one.log.bytes)
        numbers = (f"{n:,}" for n in (one.compacted, files, one.log.entries))
        left = "[red]failed, see below[/]" if one.failures else escape(one.note)
        table.add_row(one.table, *numbers, freed, "made" if one.checkpoint else "", left)
    console.print(table)
    for sentence in _sentences(done):
        console.print(sentence, highlight=False, soft_wrap=True)
    for sentence in done.told:
        console.print(f"[red]failed:[/] {escape(sentence)}", highlight=False, soft_wrap=True)


def shown_bytes(count: int) -> str:
    """Give bytes as people read them."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:,.0f} {unit}" if unit == "B" or size >= 100 else f"{size:,.1f} {unit}"


def _sentences(done: Round) -> Iterable[str]:
    if done.dry_run:
        yield "dry run: nothing was changed"
    empty = [stream.stream for stream in done.streams if not stream.tables]
    if empty:
        yield f"no tables are there yet of: {', '.join(empty)}"
    asked = [stream.stream for stream in done.streams if stream.asked]
    if asked:
        yield f"the writer {'would be' if done.dry_run else 'is'} asked to merge files of: {', '.join(asked)}"
    if done.shared:
        segments, indexes = done.shared.segments, done.shared.indexes
        yield (
            f"segments: {segments.deleted:,} deleted ({shown_bytes(segments.bytes)}), {segments.kept:,} kept; "
            f"index snapshots: {indexes.removed:,} deleted ({shown_bytes(indexes.bytes)}); {done.seconds} s"
        )


def _shared(lake: Lake, contracts: Sequence[Contract], asked: Asked, failures: list[str]) -> LakeDone | None:
    try:
        return maintain_lake(lake, contracts, asked.pipeline, asked.orders)
    except (LakehouseError, OSError) as error:
        failures.append(str(error))
        return None

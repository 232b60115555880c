"""Migrate one stream's tables to what its contract now wants, while nothing writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from jobs.chosen import load_with_keys
from jobs.credentials import lake_options
from jobs.errors import ClusterUnreachable, RunRefused
from jobs.launch import running_job
from lakehouse.lake import Lake
from lakehouse.migration import Plan, Progress, check, migrate
from udfs.canonical import canonical_text
from udfs.keys import pinned_keys


def migrate_stream(
    stream: str,
    contracts: Path,
    lake_uri: str,
    pipeline: str,
    *,
    keys: Path | None,
    cluster: str | None,
    dry_run: bool,
    console: Console,
) -> list[dict[str, Any]]:
    """Bring a stream's tables to what its contract wants, or with dry_run say what that takes; nothing when they are.

    Raises RunRefused while the pipeline's job runs, and what lakehouse.migration says.
    """
    contract, ring = load_with_keys(contracts, stream, keys)
    lake, pins = Lake.open(lake_uri, lake_options()), pinned_keys(contract, ring)
    if dry_run:
        with _Shown(console) as shown:
            found = check(lake, contract, pipeline, pins, canonical_text, shown.told)
        return [_plain(plan, None) for plan in found]
    refuse_while_running(lake, pipeline, cluster, "migrate")
    with _Shown(console) as shown:
        done = migrate(lake, contract, pipeline, pins, canonical_text, shown.told)
    return [_plain(plan, version) for plan, version in done]


def show_migration(done: list[dict[str, Any]], stream: str, console: Console, *, dry_run: bool) -> None:
    """Print what was done to each table, or would be."""
    if not done:
        console.print(f"the tables of {stream} are as the contract wants: nothing to migrate", highlight=False)
        return
    table = Table("table", "what changes", "files written again", "bytes", "version")
    for one in done:
        version = f"{one['from_version']} to {one['version'] or 'the next'}"
        table.add_row(one["table"], "\n".join(one["changes"]), f"{one['files']:,}", f"{one['bytes']:,}", version)
    console.print(table)
    if dry_run:
        console.print("nothing was changed; every value can be kept as it is", highlight=False)


def refuse_while_running(lake: Lake, pipeline: str, cluster: str | None, doing: str) -> None:
    """Raise RunRefused when the pipeline's job runs, as far as its cluster tells."""
    try:
        running = running_job(lake, pipeline, cluster)
    except ClusterUnreachable:
        return  # it is down, or it is not: a commit of its job makes ours fail, never the other way round
    if running is not None:
        job, address = running
        raise RunRefused(
            f"job {job} of pipeline {pipeline} runs on {address} and writes the tables: cancel it, {doing}, and "
            "start it again with `tidegate run`"
        )


def _plain(plan: Plan, version: int | None) -> dict[str, Any]:
    return {
        "table": plan.table,
        "changes": list(plan.changes),
        "files": plan.files,
        "bytes": plan.bytes,
        "from_version": plan.version,
        "version": version,
    }


class _Shown:
    """Shows how far the work is, one bar for each table's check and one for its writing."""

    def __init__(self, console: Console) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
        self._bars = Bars(*columns, console=console)
        self._tasks: dict[tuple[str, bool], TaskID] = {}

    def __enter__(self) -> _Shown:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def told(self, progress: Progress) -> None:
        task = progress.table, progress.checking
        if task not in self._tasks:
            doing = "checking" if progress.checking else "writing"
            self._tasks[task] = self._bars.add_task(f"{doing} {progress.table}", total=progress.of)
        self._bars.update(self._tasks[task], completed=progress.done)

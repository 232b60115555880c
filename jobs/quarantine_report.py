"""What is said of a quarantine, and of its repair, for people and for scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.quarantine import Repaired

LISTED = 20  # records that still wait


def show_counts(found: Sequence[Mapping[str, Any]], stream: str, console: Console) -> None:
    """Print how many records wait, and why."""
    if not found:
        console.print(f"nothing waits in the quarantine of {stream}", highlight=False)
        return
    table = Table("stage", "rule", "reason", "records", "first read", "last read")
    for row in found:
        times = (str(row[name])[:19] for name in ("first", "last"))
        table.add_row(*(escape(str(row[name])) for name in ("stage", "rule", "reason")), f"{row['records']:,}", *times)
    console.print(table)


def show_records(found: Sequence[Mapping[str, Any]], stream: str, console: Console) -> None:
    """Print records whole, one under the other."""
    if not found:
        console.print(f"no such record waits in the quarantine of {stream}", highlight=False)
    for row in map(as_plain, found):
        title = f"{row['topic']} partition {row['partition']} offset {row['offset']}"
        table = Table("", title, title_justify="left", show_header=True)
        for name in ("stage", "rules", "reason", "op", "key", "event_time", "kafka_time", "ingested_at", "schema_id"):
            if row[name] is not None:
                shown = ", ".join(row[name]) if name == "rules" else str(row[name])
                table.add_row(name, escape(shown))
        payload = row["payload"]
        if isinstance(payload, Mapping):
            for name, text in payload.items():
                table.add_row(f"record {name}", escape(str(text)))
        else:
            table.add_row(f"payload ({row['payload_form']})", escape(str(payload or "not kept")))
        console.print(table)


def as_plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Give a record by the names of its columns, without their underscore."""
    return {name.removeprefix("_"): value for name, value in row.items() if name != "_resolved_at"}


def show_repaired(done: Repaired, stream: str, console: Console) -> None:
    """Print what a repair did, and what still waits."""
    if not done.asked:
        console.print(f"no such record waits in the quarantine of {stream}", highlight=False)
        return
    console.print(
        f"{stream}: {done.resolved:,} of {done.asked:,} records are resolved; {done.added:,} became rows",
        highlight=False,
    )
    if not done.left:
        return
    said = (
        f"{len(done.failing):,} still break the contract",
        f"{len(done.too_old):,} are too old",
        f"{len(done.gone):,} cannot be read",
    )
    console.print(f"{len(done.left):,} still wait: {', '.join(said)}", highlight=False)
    table = Table("topic", "partition", "offset", "why", title=f"the first {min(LISTED, len(done.left))} of them")
    for row in done.left[:LISTED]:
        table.add_row(row["topic"], str(row["partition"]), str(row["offset"]), escape(row["why"]))
    console.print(table)


def repaired_as_plain(done: Repaired) -> dict[str, Any]:
    """Give the same for scripts; every record that still waits is named."""
    return asdict(done)

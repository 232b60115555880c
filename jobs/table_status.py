"""The table of `tidegate status` that says how worn tables are."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table

from jobs.maintain import shown_bytes
from lakehouse.merge.compaction import PRESSING_DEAD, PRESSING_SMALL
from lakehouse.table_facts import TableFacts


def worn(facts: Iterable[TableFacts]) -> Table:
    """Give what the files and the log of each table are like; what readers feel stands out."""
    shown = Table(
        "table", "version", "files", "size", "rows", "deleted", "small", "log (since checkpoint)", "merged",
        "maintained", "left",
    )  # fmt: skip
    for one in facts:
        rows = "-" if one.rows is None else f"{one.rows:,}"
        dead = _marked(f"{one.dead_share:.0%}", one.dead_share > PRESSING_DEAD)
        small = _marked(f"{one.small_files:,}", one.small_files >= PRESSING_SMALL)
        log = f"{one.commits_in_log:,} ({one.commits_since_checkpoint:,})"
        times = _ago(one.compacted_ms), _ago(one.maintained_ms)
        size = shown_bytes(one.bytes)
        shown.add_row(
            one.table, f"{one.version:,}", f"{one.files:,}", size, rows, dead, small, log, *times, escape(one.note)
        )
    return shown


def _marked(text: str, pressing: bool) -> str:
    return f"[yellow]{text}[/]" if pressing else text


def _ago(ms: int | None) -> str:
    if ms is None:
        return "-"
    seconds = max(time.time() - ms / 1000, 0)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"

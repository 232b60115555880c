"""How fresh streams are, as a table for the console."""

from __future__ import annotations

from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from lakehouse.freshness import Colour, Health, span

SHOWN = {Colour.GREEN: "green", Colour.AMBER: "yellow", Colour.RED: "red"}


def freshness_table(healths: Mapping[str, Health]) -> Table:
    """Give a row a stream: colour and reason, promises, and how old its data, its commits and what waits are."""
    table = Table("stream", "freshness", "why", "promised", "newest event", "waiting", "oldest waits", "watermark lag")
    for stream, health in healths.items():
        m = health.measures
        table.add_row(
            stream,
            f"[{SHOWN[health.colour]}]{health.colour}[/]",
            escape(health.reason),
            ", ".join(f"{level.name} {span(level.limit_ms)}" for level in health.levels),
            _aged(m.event_lag_ms),
            "-" if m.waiting is None else f"{m.waiting:,}",
            _aged(m.oldest_waiting_ms),
            _aged(m.watermark_lag_ms),
        )
    return table


def _aged(ms: int | None) -> str:
    return "-" if ms is None else span(ms)

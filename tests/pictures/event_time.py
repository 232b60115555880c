"""The pictures of docs/event-time.md: of a small stream that is committed for it, as its tables say afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.model import Aggregate, EventTime, Measure, Window, WindowType
from lakehouse.lake import Lake
from tests.lakehouse.aggregates.truth import rows_of
from tests.lakehouse.rows import contract, no_gaps, row, section, tables, write
from tests.pictures.svg import BLUE, GREEN, GREY, PURPLE, RED, Sheet

BEGIN = 1_700_000_000_000  # ms
RULE = EventTime(out_of_orderness_ms=4_000, idle_timeout_ms=8_000, allowed_lateness_ms=3_000)
HOP = Aggregate("sliding", Window(WindowType.HOP, 10_000, 5_000), (Measure("rows", "count"),))
# Each commit, a second after the one before: partition -> event times (s since BEGIN).
COMMITS: tuple[Mapping[int, tuple[float, ...]], ...] = (
    {0: (1, 2), 1: (0.5,)}, {0: (3, 2.5), 1: (1,)}, {0: (5, 4), 1: (2, 1.5)}, {0: (8, 7), 1: (3,)}, {0: (10, 9)},
    {0: (12,), 1: (4, 3.5)}, {0: (13, 11)}, {0: (15,)}, {0: (16, 14)}, {0: (18,)}, {0: (19, 17)}, {0: (20,)},
    {0: (21,)}, {0: (22, 20.5)}, {0: (23,)}, {0: (24,)}, {0: (25,), 1: (6, 13)}, {0: (26,), 1: (24,)},
    {0: (27,), 1: (26,)},
)  # fmt: skip
COLOURS = (BLUE, PURPLE)


@dataclass(frozen=True)
class Seen:
    """What the tables say of the run; times in s since BEGIN."""

    rows: list[dict[str, Any]]  # of the changes, with `commit`, which brought them
    watermarks: list[tuple[int, float]]  # commit, the watermark after it
    missed: list[dict[str, Any]]
    windows: list[dict[str, Any]]


def seen() -> Seen:
    """Commit the stream to a lake of its own, and read the tables."""
    of = contract(aggregates=(HOP,), event_time=RULE, tables=("quarantine", "changes"))
    offsets, commit_of, watermarks = {0: 0, 1: 0}, {}, []
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        stream = tables(lake, of)
        for number, parts in enumerate(COMMITS):
            rows, prev = [], {}
            for partition, times in parts.items():
                if offsets[partition]:
                    prev["shop.orders", partition] = offsets[partition] - 1
                for time in times:
                    offset = offsets[partition]
                    rows.append(row(offset, partition, event_ms=BEGIN + int(time * 1000)))
                    commit_of[partition, offset] = number
                    offsets[partition] += 1
            now_ms = BEGIN + 30_000 + number * 1_000
            report = stream.commit(write(lake, section(rows, prev=prev)), gaps=no_gaps, now_ms=now_ms)
            if report.watermark_ms is not None:
                watermarks.append((number, _seconds(report.watermark_ms * 1000)))
        changes = [{**r, "commit": commit_of[r["_partition"], r["_offset"]]} for r in rows_of(lake, "orders_changes")]
        missed, windows = rows_of(lake, "orders_late"), rows_of(lake, "orders_sliding")
    return Seen(changes, watermarks, missed, sorted(windows, key=lambda one: one["window_start"]))


def watermark(run: Seen) -> str:
    """Draw rows by when they came and when they happened, and the watermark between them."""
    sheet = Sheet((0, len(COMMITS)), (-5, 30), 360)
    sheet.axis_across(range(0, len(COMMITS) + 1, 2), "commit")
    sheet.axis_up(range(0, 31, 5), "event time (s)")
    for one in run.rows:
        colour = RED if one["_late"] else COLOURS[one["_partition"]]
        sheet.dot(one["commit"] + 0.5, _seconds(one["_event_time"]), colour)
    steps = [place for number, at in run.watermarks for place in ((number + 0.5, at), (number + 1.5, at))]
    sheet.path(steps, GREEN)
    for number, (text, colour) in enumerate(
        (("partition 0", BLUE), ("partition 1, slower, then idle", PURPLE), ("late", RED), ("watermark", GREEN))
    ):
        sheet.text(sheet.x(0.6), 46 + number * 17, text, colour)
    return sheet.svg()


def late(run: Seen) -> str:
    """Draw one late row of which a window had ended, and another one had not."""
    one = min(run.missed, key=lambda m: m["_watermark"] - m["_window_end"])
    place, end = _seconds(one["_event_time"]), _seconds(one["_window_end"])
    over, water = end + RULE.allowed_lateness_ms / 1000, _seconds(one["_watermark"])
    sheet = Sheet((0, 30), (0, 4), 240)
    sheet.axis_across(range(0, 31, 5), "event time (s)")
    sheet.bar(_seconds(one["_window_start"]), end, 1, GREY, "the window that it missed")
    sheet.dot(place, 1, RED)
    sheet.text(sheet.x(place) - 6, sheet.y(1) - 14, "the row", RED)
    sheet.upright(end, GREY, "the window's end", 0)
    sheet.upright(over, GREY, "and the allowed lateness", 1, dashed=True)
    sheet.upright(water, GREEN, "watermark when it came", 2)
    return sheet.svg()


def hop(run: Seen) -> str:
    """Draw rows, and the hop windows that count them."""
    sheet = Sheet((-10, 40), (0, len(run.windows) + 1), 60 + 30 * (len(run.windows) + 1), hangs=True)
    sheet.axis_across(range(-10, 41, 5), "event time (s)")
    missed = {(m["_partition"], m["_offset"]) for m in run.missed}
    for one in run.rows:
        partition, offset = one["_partition"], one["_offset"]
        sheet.dot(_seconds(one["_event_time"]), 0, COLOURS[partition], hollow=(partition, offset) in missed)
    for number, one in enumerate(run.windows):
        text = f"{one['rows']} rows" + ("" if one["_complete"] else ", still open")
        colour = GREEN if one["_complete"] else GREY
        sheet.bar(_seconds(one["window_start"]), _seconds(one["window_end"]), number + 1, colour, text)
    return sheet.svg()


def _seconds(us: int) -> float:
    return round((us - BEGIN * 1000) / 1_000_000, 3)


PICTURES = {"event-time-watermark.svg": watermark, "event-time-late.svg": late, "event-time-hop.svg": hop}


def drawn() -> dict[str, str]:
    """Give all pictures by file name."""
    run = seen()
    return {name: draw(run) for name, draw in PICTURES.items()}


if __name__ == "__main__":
    for name, picture in drawn().items():
        (Path(__file__).parents[2] / "docs" / name).write_text(picture, encoding="utf-8")

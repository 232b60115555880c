"""What aggregates must hold, worked out row by row in plain Python from what <stream>_changes and <stream>_late say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from deltalake import DeltaTable

from contracts.model import Aggregate, Measure, Window, WindowType
from lakehouse.lake import Lake

Row = dict[str, Any]
Pair = tuple[int, int]  # us, of a window
EPOCH_US = 1_000


def rows_of(lake: Lake, table: str) -> list[Row]:
    """Give the rows of a table as deltalake reads it, times as us; none where the table is not there."""
    if table not in lake.tables():
        return []
    held = DeltaTable(lake.table_uri(table), storage_options=dict(lake.storage_options))
    if held.protocol().min_reader_version >= 3:
        from deltalake import QueryBuilder

        rows = QueryBuilder().register("t", held).execute("SELECT * FROM t").read_all()
    else:
        rows = held.to_pyarrow_table()
    import pyarrow as pa

    rows = pa.table(rows)
    for i, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type):
            rows = rows.set_column(i, field.name, rows[field.name].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()))
    return rows.to_pylist()


def windows(window: Window, time_us: int) -> Iterator[Pair]:
    """Give the windows that a time lies in, by asking every one near it."""
    size, step = window.size_ms * EPOCH_US, window.step_ms * EPOCH_US
    if window.type is WindowType.SESSION:
        yield time_us, time_us + size
    elif window.type is WindowType.CUMULATE:
        start = time_us - time_us % size
        yield from ((start, end) for end in range(start + step, start + size + 1, step) if time_us < end)
    else:
        first = (time_us - size) // step * step
        for start in range(first, time_us + 1, step):
            if start <= time_us < start + size:
                yield start, start + size


def expected(aggregate: Aggregate, rows: list[Row], missed: list[Row]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Give window and group -> measures, of rows that are not missed by their windows."""
    kept: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    gone = {(m["_topic"], m["_partition"], m["_offset"], m["_window_end"]) for m in missed}
    none = {g[:3] for g in gone if g[3] is None}
    for row in rows:
        place = (row["_topic"], row["_partition"], row["_offset"])
        if place in none:
            continue
        group = tuple(row[name] for name in aggregate.group_by)
        for start, end in windows(aggregate.window, row["_event_time"]):
            if (*place, end) not in gone:
                kept[start, end, *group].append(row)
    if aggregate.window.type is WindowType.SESSION:
        kept = _sessions(kept, aggregate.window.size_ms * EPOCH_US)
    return {key: tuple(_measured(m, own) for m in aggregate.measures) for key, own in kept.items()}


def _sessions(kept: dict[tuple[Any, ...], list[Row]], gap: int) -> dict[tuple[Any, ...], list[Row]]:
    by_group: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for (_, _, *group), own in kept.items():
        by_group[tuple(group)] += own
    made = {}
    for group, own in by_group.items():
        own.sort(key=lambda row: row["_event_time"])
        begin = 0
        for at in range(1, len(own) + 1):
            if at == len(own) or own[at]["_event_time"] - own[at - 1]["_event_time"] > gap:
                made[own[begin]["_event_time"], own[at - 1]["_event_time"] + gap, *group] = own[begin:at]
                begin = at
    return made


def _measured(measure: Measure, rows: list[Row]) -> Any:
    if measure.column is None:
        return len(rows)
    values = [row[measure.column] for row in rows if row[measure.column] is not None]
    match measure.function:
        case "count":
            return len(values)
        case "approx_distinct":
            return len(set(values)) if values else None
    if not values:
        return None
    if measure.function == "avg":
        return float(sum(values, Decimal(0))) / len(values)
    return {"sum": sum, "min": min, "max": max}[measure.function](values)


def held(aggregate: Aggregate, rows: list[Row]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Give what a table of aggregates holds in the same form; a window and group that is there twice is an error."""
    found: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in rows:
        key = (row["window_start"], row["window_end"], *(row[name] for name in aggregate.group_by))
        assert key not in found, f"{aggregate.name} holds {key} twice"
        found[key] = tuple(row[m.name] for m in aggregate.measures)
    return found

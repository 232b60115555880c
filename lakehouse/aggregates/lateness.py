"""Which rows an aggregate counts in which windows, and which it cannot count: they go to <stream>_late. Pure.

A row is too late for a window when the stream watermark, as the row was judged against it, has passed the window's end
by more than the allowed lateness; for a session, the row's own window (from its time to the gap behind it) decides. The
verdict follows from what the row itself says (`_event_time`, `_lateness_ms`), so it is the same whenever it is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.columns import changes_schema
from contracts.model import Contract
from contracts.types import MICROS_UTC
from lakehouse.aggregates.measuring import Measuring
from lakehouse.aggregates.windows import US
from lakehouse.groups import NONE, Flags, Ints, int64s

LATE, NO_TIME = "late", "no event time"
NOT_SENT = "not sent: "  # and the columns
COORDINATES = ("_topic", "_partition", "_offset")

# Columns of <stream>_late beside those of the changes.
MISSED = pa.schema(
    [
        ("_aggregate", pa.string()),  # its name
        ("_why", pa.string()),  # late, no event time, not sent: <columns>
        ("_window_start", MICROS_UTC),  # of the window that it missed; null where it has none
        ("_window_end", MICROS_UTC),
        ("_watermark", MICROS_UTC),  # of the stream, when the row came; null where it was not late
    ]
)


def late_schema(contract: Contract) -> pa.Schema:
    """Give the schema of <stream>_late: one row per change, aggregate and window that it missed."""
    return pa.schema([*changes_schema(contract), *MISSED])


@dataclass(frozen=True)
class Sorted:
    """Rows as one aggregate takes them."""

    plain: pa.Table  # count in all of their windows
    late: pa.Table  # one row per row and window in which it counts
    start: Ints  # us, of the windows of late
    end: Ints
    missed: pa.Table  # one row per row and window in which it does not count; with the columns of MISSED


def sort_rows(measuring: Measuring, rows: pa.Table, allowed_ms: int) -> Sorted:
    """Sort the rows of a batch; those that were sent again, or do not pass `where`, are in none."""
    rows = rows.filter(pc.invert(rows["_resent"])) if pc.any(rows["_resent"]).as_py() else rows
    uncounted = _uncounted(measuring, rows)
    if uncounted.any():
        strange, rows = rows.filter(pa.array(uncounted)), rows.filter(pa.array(~uncounted))
        told = [_unmeasured(measuring, strange)]
    else:
        told = []
    late = rows["_late"].to_numpy()
    if not late.any():
        none = np.zeros(0, np.int64)
        return Sorted(rows, rows.slice(0, 0), none, none, _together(rows, told))
    behind, plain = rows.filter(pa.array(late)), rows.filter(pa.array(~late))
    behind = behind.take(pa.array(measuring.passing(behind)))
    times = int64s(behind["_event_time"].cast(pa.int64()))
    watermark = (times // US + behind["_lateness_ms"].to_numpy()) * US
    which, start, end = measuring.own_windows(times)
    over = end + allowed_ms * US <= watermark[which]
    missing = _missed(measuring, behind.take(pa.array(which[over])), start[over], end[over], watermark[which[over]])
    counted = behind.take(pa.array(which[~over]))
    return Sorted(plain, counted, start[~over], end[~over], _together(rows, [*told, missing]))


def without(kept: Sorted, decided: pa.Table, measuring: Measuring) -> Sorted:
    """Give rows as an earlier commit has sorted them, whatever was found now: `decided` holds what they missed then.

    All rows must be ones that the earlier commit judged.
    """
    if not len(decided):
        decided = pa.schema([*kept.plain.schema, *MISSED]).empty_table()
    again = among(kept.plain, decided, COORDINATES)
    judged, plain = kept.plain.filter(pa.array(again)), kept.plain.filter(pa.array(~again))
    which, start, end = measuring.own_windows(int64s(judged["_event_time"].cast(pa.int64())))
    judged = _pairs(judged.take(pa.array(which)), start, end)
    pairs = pa.concat_tables([_pairs(kept.late, kept.start, kept.end), _late_pairs(kept.missed), judged])
    moments = pa.chunked_array([chunk.cast(pa.int64()) for chunk in decided["_window_end"].chunks], pa.int64())
    known = decided.select(COORDINATES).append_column(BOUNDS_US[1], moments)
    counted = pairs.filter(pa.array(~among(pairs, known, [*COORDINATES, BOUNDS_US[1]])))
    start, end = (counted[name].to_numpy() for name in BOUNDS_US)
    return Sorted(plain, counted.drop_columns(list(BOUNDS_US)), start, end, kept.missed.slice(0, 0))


BOUNDS_US = ("_start_us", "_end_us")


def _pairs(rows: pa.Table, start: Ints, end: Ints) -> pa.Table:
    return rows.append_column(BOUNDS_US[0], pa.array(start)).append_column(BOUNDS_US[1], pa.array(end))


def _late_pairs(missed: pa.Table) -> pa.Table:
    own = missed.filter(pc.equal(missed["_why"], LATE))
    start, end = (own[name].cast(pa.int64()).to_numpy() for name in ("_window_start", "_window_end"))
    return _pairs(own.drop_columns(list(MISSED.names)), start, end)


def among(rows: pa.Table, known: pa.Table, names: Sequence[str]) -> Flags:
    """Mark the rows that equal one of the known in these columns. For few rows, after a crash."""
    marks = np.zeros(len(rows), np.bool_)
    numbered = rows.select(names).append_column("_place", pa.array(np.arange(len(rows))))
    marks[numbered.join(known.select(names), keys=list(names), join_type="left semi")["_place"].to_numpy()] = True
    return marks


def _uncounted(measuring: Measuring, rows: pa.Table) -> Flags:
    """Mark the rows that have no event time, or lack a value that is asked for."""
    marks: Flags = rows["_event_time"].is_null().to_numpy()
    unset = rows["_unset"]
    if unset.null_count < len(rows):
        flat = unset.combine_chunks()
        named = pc.is_in(flat.flatten(), pa.array([n for n in measuring.reads if n[:1] != "_"], pa.string()))
        parents = pc.list_parent_indices(flat).to_numpy()
        marks = marks.copy()
        marks[parents[named.to_numpy(zero_copy_only=False)]] = True
    return marks


def _unmeasured(measuring: Measuring, rows: pa.Table) -> pa.Table:
    """Give rows that cannot be counted, and why, unless `where` leaves them out."""
    rows = rows.take(pa.array(measuring.passing(rows, unless_false=True)))
    wanted = set(measuring.reads)
    why = [
        NO_TIME if time is None else NOT_SENT + ", ".join(sorted(wanted & set(unset or ())))
        for time, unset in zip(rows["_event_time"].to_pylist(), rows["_unset"].to_pylist(), strict=True)
    ]  # values that PostgreSQL did not send are rare where an aggregate asks for them
    none = np.full(len(rows), NONE)
    return _told(measuring, rows, pa.array(why, pa.string()), none, none, none)


def _missed(measuring: Measuring, rows: pa.Table, start: Ints, end: Ints, watermark: Ints) -> pa.Table:
    return _told(measuring, rows, pa.repeat(LATE, len(rows)), start, end, watermark)


def _told(  # noqa: PLR0917 (the columns of MISSED)
    measuring: Measuring, rows: pa.Table, why: pa.Array, start: Ints, end: Ints, watermark: Ints
) -> pa.Table:
    name = pa.repeat(measuring.aggregate.name, len(rows))
    columns = [name, why, *(_moments(values) for values in (start, end, watermark))]
    for field, column in zip(MISSED, columns, strict=True):
        rows = rows.append_column(field, pa.chunked_array([column], field.type))
    return rows


def _moments(values: Ints) -> pa.Array:
    return pa.array(values, mask=values == NONE).cast(MICROS_UTC)


def _together(rows: pa.Table, told: list[pa.Table]) -> pa.Table:
    none = pa.schema([*rows.schema, *MISSED]).empty_table()
    return pa.concat_tables([none, *told])

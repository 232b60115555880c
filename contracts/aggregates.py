"""Reads the setting `aggregates`: tables of measures by window of event time and group."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from contracts.columns import masked_type, own_schema
from contracts.durations import parse_duration
from contracts.expressions import bind, fits
from contracts.faults import Faults, Place
from contracts.fields import Columns
from contracts.measures import FUNCTIONS, parse_measure
from contracts.model import Aggregate, Contract, Measure, Over, Window, WindowType
from contracts.odcs import Settings, suggestion
from contracts.sql import META
from contracts.tables import RESERVED_SUFFIXES

MOST_WINDOWS = 1_440  # that one row may be in
OWN_NAMES = ("window_start", "window_end")
CURRENT_META = ("_op", "_event_time", "_source_time", "_topic", "_partition", "_offset")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")

# Window type -> the durations it is written with.
DURATIONS: Mapping[WindowType, tuple[str, ...]] = {
    WindowType.TUMBLE: ("size",),
    WindowType.HOP: ("size", "slide"),
    WindowType.CUMULATE: ("size", "step"),
    WindowType.SESSION: ("gap",),
}


def read_aggregates(
    settings: Settings, tables: tuple[str, ...], lanes: int, columns: Columns, faults: Faults
) -> tuple[Aggregate, ...]:
    """Give the aggregates whose parts can be read."""
    if "aggregates" not in settings:
        return ()
    if lanes > 1:
        message = "lanes would share the rows of an aggregate, which each of them must own"
        faults.add(settings["aggregates"].place, message, "Set `lanes: 1` in the setting `state`, or leave them out")
    read: dict[str, Aggregate] = {}
    for index, written in enumerate(settings["aggregates"].value):
        place = (*settings["aggregates"].place, index)
        name = written["name"]
        if f"_{name}" in RESERVED_SUFFIXES:
            faults.add((*place, "name"), f"a table of the stream is called {name!r}", "Give it another name")
        elif name in read:
            faults.add((*place, "name"), f"the aggregate {name!r} is there twice", "Rename one of them")
        window = _window(written["window"], (*place, "window"), faults)
        if window is not None:
            made = _Reading(written, place, columns, faults).aggregate(window)
            _check_over(made, tables, place, faults)
            read.setdefault(name, made)
    return tuple(read.values())


def late_kept(contract: Contract) -> bool:
    """Say whether a stream keeps a table of what its aggregates do not count."""
    return any(aggregate.over is Over.CHANGES for aggregate in contract.aggregates)


def row_types(contract: Contract, over: Over) -> dict[str, pa.DataType]:
    """Give the columns of a stored row that an aggregate may read, with `op`."""
    own = own_schema(contract)
    return _with_meta(dict(zip(own.names, own.types, strict=True)), over)


def _with_meta(own: Mapping[str, pa.DataType], over: Over) -> dict[str, pa.DataType]:
    meta = {name: kind for name, kind in META.items() if over is Over.CHANGES or name in CURRENT_META}
    short = {} if any(name.lower() == "op" for name in own) else {"op": pa.string()}
    return {**short, **meta, **own}


class _Reading:
    """Reads one aggregate, noting what is wrong with it."""

    def __init__(self, written: Mapping[str, Any], place: Place, columns: Columns, faults: Faults) -> None:
        self.written, self.place, self.columns, self.faults = written, place, columns, faults
        self.over = Over(written.get("over", Over.CHANGES))
        kept = [c for c in columns.all if not (c.mask is not None and c.mask.kind == "drop")]
        self.own = {c.name: masked_type(c.type.arrow, c.mask) for c in kept}
        self.types = _with_meta(self.own, self.over)

    def aggregate(self, window: Window) -> Aggregate:
        group_by = tuple(name for i, name in enumerate(self.written.get("groupBy", ())) if self._is_group(name, i))
        measures = [self._measure(name, text) for name, text in self.written["measures"].items()]
        where = self.written.get("where")
        if where is not None:
            self._check_where(where)
        told = tuple(measure for measure in measures if measure is not None)
        return Aggregate(self.written["name"], window, told, group_by, where, self.over)

    def _is_group(self, name: str, index: int) -> bool:
        place = (*self.place, "groupBy", index)
        kind = self._column(name, place)
        if kind is None:
            return False
        if name in OWN_NAMES:
            self.faults.add(place, f"a column {name!r} stands in the table already", "Group by a derived column")
        if pa.types.is_nested(kind) or pa.types.is_binary(kind):
            remedy = "Group by another column, or by a derived one"
            self.faults.add(place, f"{name!r} holds {kind}: such values make no groups", remedy)
        return True

    def _measure(self, name: str, text: str) -> Measure | None:
        place = (*self.place, "measures", name)
        taken = {*OWN_NAMES, *self.written.get("groupBy", ())}
        if not _NAME.fullmatch(name) or name in taken:
            remedy = "Use letters, digits and underscores, a letter first, and no name twice"
            self.faults.add(place, f"{name!r} cannot name a measure", remedy)
        try:
            measure = parse_measure(name, text)
        except ValueError as error:
            self.faults.add(place, str(error), "See docs/contracts.md for the functions")
            return None
        function = FUNCTIONS[measure.function]
        kind = None if measure.column is None else self._column(measure.column, place)
        if kind is not None and not function.takes(kind):
            remedy = f"{measure.function} takes {function.taken}; a derived column can hold what it needs"
            self.faults.add(place, f"{measure.column!r} holds {kind}", remedy)
            return None
        if self.over is Over.CURRENT and not function.retracts:
            steady = ", ".join(name for name, known in FUNCTIONS.items() if known.retracts)
            message = f"{measure.function} over current rows cannot take back the row that another one replaces"
            self.faults.add(place, message, f"Use {steady}, or aggregate `over: changes`")
        return measure if measure.column is None or kind is not None else None

    def _column(self, name: str, place: Place) -> pa.DataType | None:
        kind = self.types.get(name)
        if kind is None:
            if name not in self.columns.untyped:
                message = f"the tables have no column {name!r}"
                self.faults.add(place, message, suggestion(name, self.types))
            return None
        return kind

    def _check_where(self, where: str) -> None:
        place = (*self.place, "where")
        if self.columns.untyped:
            return
        try:
            found = bind(where, self.types)
        except ValueError as error:
            remedy = "Write one DuckDB condition over the stored columns"
            self.faults.add(place, f"the SQL cannot be used: {error}", remedy)
            return
        if not fits(found.gives, pa.bool_()):
            self.faults.add(place, f"the SQL gives {found.gives}, not {pa.bool_()}", "Write a condition")


def _window(written: Mapping[str, Any], place: Place, faults: Faults) -> Window | None:
    kind = WindowType(written["type"])
    wanted, given = DURATIONS[kind], set(written) - {"type"}
    if given != set(wanted):
        remedy = f"Write {' and '.join(f'`{name}`' for name in wanted)}"
        faults.add(place, f"a {kind} window has {', '.join(wanted)}, and nothing else", remedy)
        return None
    lengths = []
    for name in wanted:
        try:
            lengths.append(parse_duration(written[name]))
        except ValueError as error:
            faults.add((*place, name), str(error), "Write a number and a unit, such as `1 minute`")
            return None
    size, step = lengths[0], lengths[-1]
    if step <= 0 or size < step or size % step:
        message = f"the {wanted[0]} is no multiple of the {wanted[-1]}" if size > 0 else "a window has a length"
        faults.add(place, message, f"Write a {wanted[0]} that is, such as `1 hour` and `5 minutes`")
        return None
    if size // step > MOST_WINDOWS:
        message = f"a row would be in {size // step:,} windows"
        faults.add(place, message, f"Write a longer {wanted[-1]}: {MOST_WINDOWS:,} at most")
    return Window(kind, size, step)


def _check_over(made: Aggregate, tables: tuple[str, ...], place: Place, faults: Faults) -> None:
    if made.over is not Over.CURRENT:
        return
    if "current" not in tables:
        message = "the aggregate is over current rows, and the stream keeps none"
        faults.add((*place, "over"), message, "Add `current` to the setting `tables`")
    if made.window.type is WindowType.SESSION:
        message = "sessions over current rows would come apart when a row leaves"
        faults.add((*place, "window"), message, "Use another window, or aggregate `over: changes`")

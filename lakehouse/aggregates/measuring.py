"""Rows become measures by window and group, and measures of the same window and group become one. Pure.

The parts that are put together have the bounds of their window (us since the epoch), the group, and the states of the
measures; in any order, any number of times: sums, counts, extremes and sketches do not depend on it. (Sums of floating
point numbers do, in their last digits.)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.aggregates import row_types
from contracts.columns import own_schema
from contracts.expressions import bind
from contracts.model import Aggregate, Contract, Measure, Over, WindowType
from contracts.types import MICROS_UTC
from lakehouse.aggregates.columns import BOUNDS, aggregate_schema, states_of
from lakehouse.aggregates.engine import ask, quoted
from lakehouse.aggregates.sketches import SKETCHES, estimates, sketched, united
from lakehouse.aggregates.windows import US, own_windows, panes, windows_of
from lakehouse.groups import Ints, int64s

TIME, WEIGHT, NUMBER = "_time", "_weight", "_number"  # beside a row's own columns
START, END = "_start", "_end"


class Measuring:
    """Measures rows as one aggregate of a contract says."""

    def __init__(self, contract: Contract, aggregate: Aggregate) -> None:
        self.aggregate = aggregate
        self.window = aggregate.window
        self.schema = aggregate_schema(contract, aggregate)
        self._types = row_types(contract, aggregate.over)
        self._op = None if any(n.lower() == "op" for n in own_schema(contract).names) else "op"
        self._retracts = aggregate.over is Over.CURRENT
        self.session = self.window.type is WindowType.SESSION

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """The columns of rows that are read, beside the event time."""
        where = bind(self.aggregate.where, self._types).reads if self.aggregate.where else frozenset()
        measured = {m.column for m in self.aggregate.measures if m.column is not None}
        named = {*self.aggregate.group_by, *measured, *where}
        return tuple(sorted({"_op" if name == self._op else name for name in named}))

    @cached_property
    def parts_schema(self) -> pa.Schema:
        """The schema of parts."""
        groups = [self.schema.field(name) for name in self.aggregate.group_by]
        bounds = [pa.field(name, pa.int64()) for name in BOUNDS]
        return pa.schema([*bounds, *groups, ("_rows", pa.int64()), *self._states])

    @cached_property
    def _states(self) -> list[pa.Field]:
        return [f for m in self.aggregate.measures for f in states_of(self._types, m, self.aggregate.over)]

    # --- rows

    def passing(self, rows: pa.Table, *, unless_false: bool = False) -> Ints:
        """Give the places of the rows that pass `where`, or for which it is not false; one that fails does not pass."""
        if not self.aggregate.where:
            return np.arange(len(rows))
        condition = f"TRY(({self.aggregate.where}\n))"
        condition = f"COALESCE({condition}, true)" if unless_false else condition
        numbered = self._shown(rows).append_column(NUMBER, pa.array(np.arange(len(rows))))
        found: Ints = ask(f"SELECT {NUMBER} FROM rows WHERE {condition}", numbered)[NUMBER].to_numpy()
        return np.sort(found)

    def parts(self, rows: pa.Table, weights: Ints | None = None) -> pa.Table:
        """Give the parts of rows that have an event time; weights: 1 for one that comes, -1 for one that goes."""
        times = int64s(rows["_event_time"].cast(pa.int64()))
        shown = self._shown(rows)
        if weights is not None:
            shown = shown.append_column(WEIGHT, pa.array(weights))
        if self.session:
            return self._typed(ask(self._session_question, shown.append_column(TIME, pa.array(times))))
        beginnings = pa.array(panes(self.window, times))
        by_pane = ask(self._question, shown.append_column(START, beginnings).append_column(END, beginnings))
        which, start, end = windows_of(self.window, by_pane[BOUNDS[0]].to_numpy())
        parts = self._typed(by_pane)
        return _bounded(parts if len(which) == len(parts) else parts.take(pa.array(which)), start, end)

    def parts_of_pairs(self, rows: pa.Table, start: Ints, end: Ints) -> pa.Table:
        """Give the parts of rows of which each is to count in one window."""
        bounded = self._shown(rows).append_column(START, pa.array(start)).append_column(END, pa.array(end))
        return self._typed(ask(self._question, bounded))

    def own_windows(self, times: Ints) -> tuple[Ints, Ints, Ints]:
        """Give the windows that times lie in: which time, beginning and end."""
        return own_windows(self.window, times)

    def _shown(self, rows: pa.Table) -> pa.Table:
        """Give the columns that are read, with `op`, or one column where none is."""
        shown = rows.select(self.reads or rows.column_names[:1])
        return shown.append_column("op", shown["_op"]) if self._op and "_op" in shown.column_names else shown

    # --- parts

    def merged(self, parts: Sequence[pa.Table]) -> pa.Table:
        """Give parts with those of the same window and group put together; windows of sessions that touch are one."""
        rows = pa.concat_tables([self.parts_schema.empty_table(), *parts]).combine_chunks()
        if not len(rows):
            return rows
        found = ask(self._session_union if self.session else self._union, rows)
        columns = {name: found[name] for name in found.column_names}
        for measure in self._sketches:
            name = f"_{measure.name}_sketch"
            columns[name] = united(columns[name], SKETCHES[measure.function])
        return self._cast(columns)

    def counted(self, parts: pa.Table) -> pa.Table:
        """Give parts without those of which every row was taken back."""
        return parts.filter(pc.not_equal(parts["_rows"], 0)) if self._retracts else parts

    def stored(self, parts: pa.Table, watermark_ms: int | None, now_us: int) -> pa.Table:
        """Give parts as rows of the table."""
        ends = parts[BOUNDS[1]].to_numpy()
        complete = np.zeros(len(parts), np.bool_) if watermark_ms is None else ends <= watermark_ms * US
        made = {
            **{name: parts[name] for name in parts.column_names},
            **{name: parts[name].cast(MICROS_UTC) for name in BOUNDS},
            "_complete": pa.array(complete),
            "_updated_at": pa.array(np.full(len(parts), now_us), MICROS_UTC),
        }
        for measure in self.aggregate.measures:
            value = self._value(measure, parts)
            if value is not None:
                made[measure.name] = value
        return pa.Table.from_arrays([_as(made[f.name], f.type) for f in self.schema], schema=self.schema)

    def parts_of_stored(self, rows: pa.Table) -> pa.Table:
        """Give rows of the table as parts."""
        bounds = {name: rows[name].cast(pa.int64()) for name in BOUNDS}
        return self._cast({**{name: rows[name] for name in self.parts_schema.names if name not in bounds}, **bounds})

    @property
    def stored_columns(self) -> list[str]:
        """The columns that parts_of_stored reads."""
        return list(self.parts_schema.names)

    def _value(self, measure: Measure, parts: pa.Table) -> pa.Array | pa.ChunkedArray | None:
        """Give a measure's values where they are not one of its states."""
        name, kind = measure.name, self.schema.field(measure.name).type
        if measure.function == "avg":
            summed, count = _floats(parts[f"_{name}_sum"]), parts[f"_{name}_count"]
            return pc.divide(summed, pc.if_else(pc.equal(count, 0), None, count).cast(pa.float64()))
        if measure.function in SKETCHES:
            return estimates(parts[f"_{name}_sketch"], SKETCHES[measure.function], measure.argument, kind)
        if measure.function == "sum" and self._retracts:
            return pc.if_else(pc.equal(parts[f"_{name}_count"], 0), pa.scalar(None, kind), parts[name])
        return None

    @property
    def _sketches(self) -> list[Measure]:
        return [m for m in self.aggregate.measures if m.function in SKETCHES]

    def _typed(self, found: pa.Table) -> pa.Table:
        """Give DuckDB's answer as parts: lists of values become sketches."""
        columns = {name: found[name] for name in found.column_names}
        for measure in self._sketches:
            name = f"_{measure.name}_sketch"
            columns[name] = sketched(columns[name], SKETCHES[measure.function])
        return self._cast(columns)

    def _cast(self, columns: dict[str, pa.Array | pa.ChunkedArray]) -> pa.Table:
        schema = self.parts_schema
        return pa.Table.from_arrays([_as(columns[f.name], f.type) for f in schema], schema=schema)

    # --- questions

    @property
    def _where(self) -> str:
        return f" WHERE TRY(({self.aggregate.where}\n))" if self.aggregate.where else ""

    @cached_property
    def _groups(self) -> list[str]:
        return [quoted(name) for name in self.aggregate.group_by]

    @cached_property
    def _question(self) -> str:
        bounds = f"{START} AS {BOUNDS[0]}, {END} AS {BOUNDS[1]}"
        listed = ", ".join([bounds, *self._groups, self._count("*"), *self._selected()])
        return f"SELECT {listed} FROM rows{self._where} GROUP BY {', '.join([START, END, *self._groups])}"

    @cached_property
    def _session_question(self) -> str:
        gap = self.window.size_ms * US
        over = self._over(TIME)
        since = f"SELECT *, {TIME} - lag({TIME}) OVER ({over}) AS _since FROM rows{self._where}"
        number = f"SELECT *, sum(CASE WHEN _since <= {gap} THEN 0 ELSE 1 END) OVER ({over}) AS _session FROM ({since})"
        bounds = f"min({TIME}) AS {BOUNDS[0]}, max({TIME}) + {gap} AS {BOUNDS[1]}"
        listed = ", ".join([bounds, *self._groups, self._count("*"), *self._selected()])
        return f"SELECT {listed} FROM ({number}) GROUP BY {', '.join([*self._groups, '_session'])}"

    @cached_property
    def _union(self) -> str:
        by = ", ".join([*BOUNDS, *self._groups])
        return f"SELECT {', '.join([by, *self._summed()])} FROM rows GROUP BY {by}"

    @cached_property
    def _session_union(self) -> str:
        start, end = BOUNDS
        before = f"max({end}) OVER ({self._over(start)} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
        apart = f"SELECT *, CASE WHEN {start} <= {before} THEN 0 ELSE 1 END AS _apart FROM rows"
        number = f"SELECT *, sum(_apart) OVER ({self._over(start)}) AS _session"  # of equal beginnings, one number
        listed = ", ".join([f"min({start}) AS {start}, max({end}) AS {end}", *self._groups, *self._summed()])
        by = ", ".join([*self._groups, "_session"])
        return f"SELECT {listed} FROM ({number} FROM ({apart})) GROUP BY {by}"

    def _over(self, by: str) -> str:
        groups = f"PARTITION BY {', '.join(self._groups)} " if self._groups else ""
        return f"{groups}ORDER BY {by}"

    def _count(self, what: str) -> str:
        return f"{self._counted(what)} AS _rows"

    def _counted(self, what: str) -> str:
        if not self._retracts:
            return f"count({what})"
        return f"sum({WEIGHT})" if what == "*" else f"sum(CASE WHEN {what} IS NULL THEN 0 ELSE {WEIGHT} END)"

    def _selected(self) -> list[str]:
        return [f"{sql} AS {quoted(name)}" for m in self.aggregate.measures for name, sql in self._states_sql(m)]

    def _states_sql(self, measure: Measure) -> list[tuple[str, str]]:
        """Give a measure's states of rows, each with its SQL."""
        name, column = measure.name, "*" if measure.column is None else quoted(measure.column)
        signed = f"CASE WHEN {WEIGHT} > 0 THEN {column} ELSE -{column} END" if self._retracts else column
        match measure.function:
            case "count":
                return [(name, self._counted(column))]
            case "sum":
                count = [(f"_{name}_count", self._counted(column))] if self._retracts else []
                return [(name, f"sum({signed})"), *count]
            case "avg":
                return [(f"_{name}_sum", f"sum({signed})"), (f"_{name}_count", self._counted(column))]
            case "approx_distinct":
                told = self._hashable(measure)
                return [(f"_{name}_sketch", f"list(DISTINCT {told}) FILTER (WHERE {column} IS NOT NULL)")]
            case "approx_quantile":
                return [(f"_{name}_sketch", f"list(CAST({column} AS DOUBLE)) FILTER (WHERE {column} IS NOT NULL)")]
        return [(name, f"{measure.function}({column})")]

    def _hashable(self, measure: Measure) -> str:
        """Give a column's SQL as a value that sketches take: a number or text."""
        column, kind = quoted(str(measure.column)), self._types[str(measure.column)]
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_string(kind):
            return column
        return f"hex({column})" if pa.types.is_binary(kind) else f"CAST({column} AS VARCHAR)"

    def _summed(self) -> list[str]:
        """Give the states of parts put together."""
        summed = ["sum(_rows) AS _rows"]
        for measure in self.aggregate.measures:
            for field in states_of(self._types, measure, self.aggregate.over):
                name = quoted(field.name)
                if measure.function in SKETCHES:
                    summed.append(f"list({name}) FILTER (WHERE {name} IS NOT NULL) AS {name}")
                else:
                    verb = measure.function if measure.function in ("min", "max") else "sum"
                    summed.append(f"{verb}({name}) AS {name}")
        return summed


def _bounded(parts: pa.Table, start: Ints, end: Ints) -> pa.Table:
    """Give parts with other bounds."""
    return parts.set_column(0, BOUNDS[0], pa.array(start)).set_column(1, BOUNDS[1], pa.array(end))


def _floats(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Give numbers as the nearest floats; Arrow's own cast of a decimal is one step off now and then."""
    text = column.cast(pa.string()) if pa.types.is_decimal(column.type) else column
    return text.cast(pa.float64())


def _as(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    return column if column.type == kind else column.cast(kind)

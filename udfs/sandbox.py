"""Contract SQL, evaluated by DuckDB on Arrow rows: without files, network or settings, on the calling thread only."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.expressions import ROW, bind, sandbox
from udfs.arrays import flat, repeat, spread

MOST_PREPARED = 256  # statements a thread keeps; more cost time, never an answer

# Arrow type -> how DuckDB spells it.
SPELLED: Mapping[pa.DataType, str] = {
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.date32(): "DATE",
    pa.timestamp("us"): "TIMESTAMP",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
}


@dataclass(frozen=True)
class Expression:
    """One SQL expression over a row, the type it gives and the columns it reads."""

    sql: str
    type: pa.DataType
    reads: tuple[str, ...]

    @classmethod
    def of(cls, sql: str, gives: pa.DataType, columns: Mapping[str, pa.DataType]) -> Expression:
        """Bind an expression to typed columns; raises ValueError where a contract check would refuse it."""
        return cls(sql, gives, tuple(sorted(bind(sql, columns).reads)))

    @property
    def cast(self) -> str:
        """The expression as SQL of its declared type; the line break ends a comment that would hide the bracket."""
        return f"CAST(({self.sql}\n) AS {spelled(self.type)})"


@dataclass(frozen=True)
class Evaluated:
    """What one expression gives per row; `failed` marks rows for which it has no value (None: there are none)."""

    values: pa.Array
    failed: pa.BooleanArray | None = None


def evaluate(expressions: Sequence[Expression], table: pa.Table) -> list[Evaluated]:
    """Give each expression's values, one per row of the table; never raises for what a row holds."""
    try:
        return [Evaluated(values) for values in _selected(expressions, table)]
    except duckdb.Error:
        return [_evaluate_around_failures(expression, table) for expression in expressions]


def spelled(kind: pa.DataType) -> str:
    """Give an Arrow type as DuckDB spells it."""
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    if pa.types.is_list(kind):
        return f"{spelled(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        return "STRUCT(" + ", ".join(f'"{f.name}" {spelled(f.type)}' for f in kind) + ")"
    return SPELLED[kind]


class _Rows:
    """The rows a prepared statement reads: set anew for each batch, so that nothing is registered again."""

    def __init__(self, schema: pa.Schema) -> None:
        self.nothing = self.table = schema.empty_table()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


class _Connections(threading.local):
    """One connection per thread, with the statements prepared on it."""

    def __init__(self) -> None:
        self.open()

    def open(self) -> None:
        """Begin anew on the calling thread."""
        self.prepared: dict[tuple[Any, ...], tuple[_Rows, str]] = {}
        self.connection = sandbox()


_connections = _Connections()


def _selected(expressions: Sequence[Expression], table: pa.Table) -> list[pa.Array]:
    """Give the values of all expressions in one statement; raises duckdb.Error when a row has none."""
    names = sorted({name for e in expressions for name in e.reads}) or table.column_names[:1]
    read = _run([e.cast for e in expressions], table.select(names))
    return [
        values if values.type == e.type else values.cast(e.type) for e, values in zip(expressions, read, strict=True)
    ]


def _run(selected: list[str], table: pa.Table) -> list[pa.Array]:
    prepared = _connections.prepared
    wanted = (*selected, table.schema)
    if wanted not in prepared:
        if len(prepared) >= MOST_PREPARED:
            _connections.open()
            prepared = _connections.prepared
        prepared[wanted] = _prepare(selected, table)
    rows, statement = prepared[wanted]
    rows.table = table
    try:
        answer = _connections.connection.execute(statement).to_arrow_table()
    except (duckdb.FatalException, duckdb.InternalException):
        _connections.open()  # DuckDB answers nothing more on a connection after such a fault
        raise
    finally:
        rows.table = rows.nothing
    return [flat(column) for column in answer.columns]


def _prepare(selected: list[str], table: pa.Table) -> tuple[_Rows, str]:
    number = len(_connections.prepared)
    rows = _Rows(table.schema)
    _connections.connection.register(f"rows_{number}", rows)
    listed = ", ".join(f"{sql} AS c{i}" for i, sql in enumerate(selected))
    _connections.connection.execute(f"PREPARE q_{number} AS SELECT {listed} FROM rows_{number} AS {ROW}")
    return rows, f"EXECUTE q_{number}"


def _evaluate_around_failures(expression: Expression, table: pa.Table) -> Evaluated:
    failed = _failures(expression, table)
    if failed.true_count == len(table):
        return Evaluated(pa.nulls(len(table), expression.type), failed)
    whole = pc.invert(failed)
    values = _selected([expression], table.filter(whole))[0]
    return Evaluated(spread(values, whole), failed)


def _failures(expression: Expression, table: pa.Table) -> pa.BooleanArray:
    """Find the rows for which an expression raises: DuckDB's TRY tells at once, else by halving."""
    names = list(expression.reads) or table.column_names[:1]
    try:
        # TRY gives null for a row that fails; "is it null" is never null itself.
        failed = _run([f"TRY({expression.cast} IS NULL)"], table.select(names))[0].is_null()
    except duckdb.Error:
        failed = repeat(False, len(table))
    suspects = np.flatnonzero(~failed.to_numpy(zero_copy_only=False))
    culprits = _halved(expression, table, suspects)
    return pc.or_(failed, _marked(culprits, len(table)))


def _halved(expression: Expression, table: pa.Table, suspects: Any) -> list[int]:
    """Give those of the suspected rows for which the expression raises."""
    if not len(suspects):
        return []
    try:
        _selected([expression], table.take(suspects))
        return []
    except duckdb.Error:
        if len(suspects) == 1:
            return [int(suspects[0])]
    middle = len(suspects) // 2
    return [
        *_halved(expression, table, suspects[:middle]),
        *_halved(expression, table, suspects[middle:]),
    ]


def _marked(rows: list[int], length: int) -> pa.BooleanArray:
    marks = np.zeros(length, bool)
    marks[rows] = True
    return pa.array(marks)

"""Checks SQL expressions of a contract by having DuckDB parse and bind them against an empty, typed row."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

ROW = "changes"  # the name expressions may use for the row's table

_LOCK = threading.Lock()


@dataclass(frozen=True)
class Bound:
    """An expression that DuckDB understands: the columns it reads and the type it gives."""

    reads: frozenset[str]
    gives: pa.DataType


def sandbox() -> duckdb.DuckDBPyConnection:
    """Give a new DuckDB that reads no file, no network and no Python variable, in UTC, on the calling thread alone."""
    connection = duckdb.connect(config={"threads": 1})
    connection.execute(
        "SET TimeZone = 'UTC'; SET autoinstall_known_extensions = false; SET autoload_known_extensions = false;"
        "SET python_enable_replacements = false; SET enable_external_access = false; SET lock_configuration = true"
    )
    return connection


def bind(sql: str, columns: Mapping[str, pa.DataType]) -> Bound:
    """Bind an expression to typed columns.

    Raises ValueError, with DuckDB's reason, when it is no single expression over one row, names an unknown column,
    or gives another answer when asked again (a replay has to decide the same).
    """
    with _LOCK:
        tree = _parsed(sql)
        for node in _nodes(tree):
            _refuse_beyond_the_row(node, columns)
        reads = frozenset(_columns(tree, columns))
        connection = _connection()
        connection.register(ROW, pa.schema(columns.items()).empty_table())
        try:
            table = connection.execute(f"SELECT ({sql}\n) AS value FROM {ROW}").arrow()
        except duckdb.Error as error:
            raise ValueError(_first_line(error)) from None
        finally:
            connection.unregister(ROW)
    return Bound(reads, table.schema.field(0).type)


def fits(given: pa.DataType, declared: pa.DataType) -> bool:
    """Whether a value of one type can be stored as another without a change of meaning."""
    if given == declared or pa.types.is_null(given):
        return True
    if pa.types.is_integer(given):
        return bool(pa.types.is_integer(declared) or pa.types.is_decimal(declared) or pa.types.is_floating(declared))
    if pa.types.is_decimal(given):
        # DuckDB gives sums of integers as DECIMAL(38,0) (HUGEINT).
        return bool(pa.types.is_decimal(declared) or (given.scale == 0 and pa.types.is_integer(declared)))
    if pa.types.is_floating(given):
        return bool(pa.types.is_floating(declared))
    if pa.types.is_timestamp(given) and pa.types.is_timestamp(declared):
        return (given.tz is None) == (declared.tz is None)
    if pa.types.is_list(given) and pa.types.is_list(declared):
        return fits(given.value_type, declared.value_type)
    texts = (pa.string(), pa.large_string(), pa.string_view()) if hasattr(pa, "string_view") else (pa.string(),)
    return given in texts and declared == pa.string()


@functools.cache
def _connection() -> duckdb.DuckDBPyConnection:
    return sandbox()


def _parsed(sql: str) -> Any:
    """Give DuckDB's syntax tree of the one expression; the brackets keep it one even when it holds brackets itself."""
    try:
        # A line break ends a comment, which would else hide the bracket.
        written = _connection().execute("SELECT json_serialize_sql(?)", [f"SELECT ({sql}\n)"]).fetchone()
    except duckdb.Error as error:
        raise ValueError(_first_line(error)) from None
    try:
        tree: dict[str, Any] = json.loads(written[0]) if written else {"error": True}
    except RecursionError:
        raise ValueError("the expression is nested too deeply") from None
    if tree["error"]:
        raise ValueError(str(tree.get("error_message", "this is not SQL")).splitlines()[0])
    selects = [statement["node"] for statement in tree["statements"]]
    if len(selects) != 1 or not _only_an_expression(selects[0]):
        raise ValueError("this is not one expression")
    return selects[0]["select_list"][0]


def _only_an_expression(select: Mapping[str, Any]) -> bool:
    empty = select.get("from_table", {}).get("type") == "EMPTY"
    clauses = ("where_clause", "having", "qualify", "sample")
    rest = any(select.get(clause) for clause in clauses) or select.get("modifiers") or select.get("group_expressions")
    return select.get("type") == "SELECT_NODE" and empty and len(select["select_list"]) == 1 and not rest


def _nodes(tree: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _refuse_beyond_the_row(node: Mapping[str, Any], known: Mapping[str, pa.DataType]) -> None:
    kind, name = node.get("class"), str(node.get("function_name", "")).lower()
    if kind == "COLUMN_REF" and len(node["column_names"]) == 1 and node["column_names"][0] not in known:
        kind, name = "FUNCTION", str(node["column_names"][0]).lower()  # current_date and the like look like columns
    if kind in ("SUBQUERY", "STAR", "WINDOW", "PARAMETER"):
        raise ValueError(f"an expression reads one row; this one holds a {str(kind).lower()}")
    if kind == "FUNCTION" and (name in _unsteady() or name in _aggregates()):
        raise ValueError(f"{name}() needs more than the row, or answers differently in a replay")


def _columns(tree: Any, known: Mapping[str, pa.DataType]) -> Iterator[str]:
    """Give the known columns that a tree names: also by `changes.name`, as a field of a structure, in any case."""
    by_name = {name.lower(): name for name in known}
    for node in _nodes(tree):
        if node.get("class") == "COLUMN_REF":
            for part in node["column_names"]:
                if part.lower() in by_name:
                    yield by_name[part.lower()]


@functools.cache
def _unsteady() -> frozenset[str]:
    """Give the functions that depend on more than their arguments: the clock, chance, the session."""
    sql = """SELECT DISTINCT function_name FROM duckdb_functions()
             WHERE function_type = 'scalar' AND stability IS DISTINCT FROM 'CONSISTENT'"""
    # Keywords that DuckDB turns into functions, and what it lists as steady although the session decides it.
    keywords = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "today", "now"}
    session = {"getenv", "current_setting", "current_user", "current_schema", "current_database", "version", "user"}
    return _names(sql) | keywords | session


@functools.cache
def _aggregates() -> frozenset[str]:
    sql = (
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type IN ('aggregate', 'table', 'pragma')"
    )
    scalar = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type IN ('scalar', 'macro')"
    return _names(sql) - _names(scalar)


def _names(sql: str) -> frozenset[str]:
    return frozenset(row[0] for row in _connection().execute(sql).fetchall())


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].strip() or "DuckDB cannot read it"

"""DuckDB on Arrow tables: what puts rows together by group. It holds nothing between two questions."""

from __future__ import annotations

import threading

import duckdb
import pyarrow as pa

from contracts.expressions import sandbox


class _Connections(threading.local):
    """One connection a thread."""

    connection: duckdb.DuckDBPyConnection | None = None


_connections = _Connections()


def ask(sql: str, rows: pa.Table) -> pa.Table:
    """Give the answer to a question about the table `rows`; raises duckdb.Error."""
    if _connections.connection is None:
        _connections.connection = sandbox()
    connection = _connections.connection
    connection.register("rows", rows)
    try:
        return connection.execute(sql).to_arrow_table()
    except (duckdb.FatalException, duckdb.InternalException):
        _connections.connection = None  # it answers nothing more after such a fault
        raise
    finally:
        if _connections.connection is not None:
            connection.unregister("rows")


def quoted(name: str) -> str:
    """Give a column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'

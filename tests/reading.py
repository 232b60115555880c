"""One DuckDB for all tests of a process: to load what it needs costs more than most of what tests ask it."""

from __future__ import annotations

from functools import cache
from itertools import count

import duckdb

from lakehouse.lake import Lake
from lakehouse.read import engine, show

_numbers = count()


@cache
def _engine() -> duckdb.DuckDBPyConnection:
    return engine()


def reader(lake: Lake) -> duckdb.DuckDBPyConnection:
    """Give DuckDB with the lake's tables of now as views, as lakehouse.read.connect does."""
    connection = _engine().cursor()
    schema = f"lake_{next(_numbers)}"
    connection.execute(f"CREATE SCHEMA {schema}")
    connection.execute(f"USE {schema}")
    show(connection, lake)
    return connection

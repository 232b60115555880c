"""SQL over the lake, for the command line and the demo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
from rich.console import Console
from rich.table import Table

from jobs.credentials import lake_options
from jobs.errors import TidegateError
from lakehouse.lake import Lake
from lakehouse.read import connect

Row = tuple[Any, ...]


def run_query(sql: str, lake_uri: str) -> tuple[list[str], list[Row]]:
    """Give the column names and rows of a query over the lake's tables (views named like them)."""
    connection = connect(Lake.open(lake_uri, lake_options()))
    try:
        result = connection.execute(sql)
        return [column[0] for column in result.description or ()], result.fetchall()
    except duckdb.Error as error:
        raise TidegateError(f"DuckDB: {error}") from error


def show_result(names: Sequence[str], rows: Sequence[Row], console: Console, title: str | None = None) -> None:
    """Print rows as a table."""
    table = Table(*names, title=title, title_justify="left")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    console.print(table)

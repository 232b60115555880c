"""Rows as three readers give them, in one form that is equal only where every value is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder

from lakehouse.lake import Lake
from tests.interop.spark import Spark
from tests.reading import reader

TABLES = ("docs", "docs_history", "docs_changes", "docs_quarantine", "_tidegate/memory/docs")


def by_deltalake(lake: Lake, table: str, version: int | None = None) -> pa.Table:
    """Read a version of a table by deltalake."""
    delta = DeltaTable(lake.table_uri(table), version=version, storage_options=dict(lake.storage_options))
    return pa.table(QueryBuilder().register("t", delta).execute("SELECT * FROM t").read_all())


def by_duckdb(lake: Lake, table: str, version: int | None = None) -> pa.Table:
    """Read a version of a table by DuckDB."""
    at = "" if version is None else f", version => {version}"
    connection = reader(lake)
    connection.execute("SET TimeZone = 'UTC'")
    return connection.execute(f"SELECT * FROM delta_scan('{lake.table_uri(table)}'{at})").to_arrow_table()


def alike(lake: Lake, table: str, rows: pa.Table, version: int | None = None) -> list[str]:
    """Give rows as texts, sorted: columns in the table's order, floats with all their bits, times in UTC."""
    delta = DeltaTable(lake.table_uri(table), version=version, storage_options=dict(lake.storage_options))
    names = [field.name for field in delta.schema().fields]
    assert sorted(rows.column_names) == sorted(names)
    return sorted(repr([_plain(value) for value in row.values()]) for row in rows.select(names).to_pylist())


def _plain(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return {name: _plain(one) for name, one in value.items()} if isinstance(value, dict) else value


def newest(lake: Lake, table: str) -> int:
    """Give the newest version of a table."""
    return DeltaTable(lake.table_uri(table), storage_options=dict(lake.storage_options)).version()


def assert_equal(spark: Spark, lake: Lake, table: str) -> int:
    """Hold that all three readers give the same rows of the newest version; give how many."""
    found = alike(lake, table, spark.read(lake, table))
    assert found == alike(lake, table, by_deltalake(lake, table)), table
    assert found == alike(lake, table, by_duckdb(lake, table)), table
    return len(found)

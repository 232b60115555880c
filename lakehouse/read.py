"""Read the lake: DuckDB with every table as a view, offline."""

from __future__ import annotations

import importlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from lakehouse.lake import Lake


def connect(lake: Lake) -> duckdb.DuckDBPyConnection:
    """Give a DuckDB connection in which every table of the lake is a view of the same name.

    Nothing is downloaded: the extensions come from their Python packages.
    """
    connection = engine()
    show(connection, lake)
    return connection


def engine() -> duckdb.DuckDBPyConnection:
    """Give a DuckDB that reads Delta tables, on local disk and S3; to load that costs half a second of CPU."""
    connection = duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"})
    for name in ("httpfs", "delta"):
        connection.execute(f"LOAD '{_extension(name)}'")
    return connection


def show(connection: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """Make every table of the lake a view of the same name."""
    if lake.remote:
        give_secret(connection, lake)
    for table in lake.tables():
        uri = lake.table_uri(table).replace("'", "''")
        connection.execute(f"""CREATE VIEW "{table}" AS SELECT * FROM delta_scan('{uri}')""")


def _extension(name: str) -> Path:
    package = importlib.import_module(f"duckdb_extension_{name}")
    folder = Path(str(package.__file__)).parent / "extensions" / f"v{duckdb.__version__}"
    return folder / f"{name}.duckdb_extension"


def give_secret(connection: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """Let a connection read the lake on S3."""
    options = lake.storage_options
    endpoint = urlsplit(options.get("AWS_ENDPOINT_URL", ""))
    parameters = {
        "KEY_ID": options.get("AWS_ACCESS_KEY_ID"),
        "SECRET": options.get("AWS_SECRET_ACCESS_KEY"),
        "SESSION_TOKEN": options.get("AWS_SESSION_TOKEN"),
        "REGION": options.get("AWS_REGION"),
        "ENDPOINT": endpoint.netloc or None,
        "URL_STYLE": "path" if endpoint.netloc else None,
        "USE_SSL": "false" if endpoint.scheme == "http" else None,
    }
    given = ", ".join(f"{name} '{_quoted(value)}'" for name, value in parameters.items() if value)
    connection.execute(f"CREATE OR REPLACE SECRET (TYPE s3, {given})")


def _quoted(value: str) -> str:
    return value.replace("'", "''")


@dataclass(frozen=True)
class TableStatus:
    """What a table holds now."""

    name: str
    version: int
    rows: int
    bytes: int
    committed_ms: int  # when the newest commit was made


def table_status(lake: Lake) -> list[TableStatus]:
    """Give the status of every table, by name; reads logs, no data."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda name: _status(lake, name), lake.tables()))


def _status(lake: Lake, name: str) -> TableStatus:
    with lake.explained(f"open table {name}"):
        table = DeltaTable(lake.table_uri(name), storage_options=dict(lake.storage_options))
        files = pa.table(table.get_add_actions(flatten=True))
        newest = table.history(1)[0]
    rows = pc.sum(files["num_records"]).as_py() or 0
    size = pc.sum(files["size_bytes"]).as_py() or 0
    return TableStatus(name, table.version(), rows, size, int(newest["timestamp"]))

"""_tidegate/drift: where what sources send differs from what contracts say, one row for each difference noticed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from contracts.types import MICROS_UTC
from lakehouse.lake import Lake

TABLE = "_tidegate/drift"
ATTEMPTS = 5  # against other workers that notice the same at the same moment

DRIFT = pa.schema(
    [
        ("seen_at", MICROS_UTC),
        ("stream", pa.string()),
        ("kind", pa.string()),  # column_added, column_dropped, type_changed, ...; docs/contracts.md lists them
        ("column", pa.string()),
        ("before", pa.string()),  # the type that the contract declares
        ("after", pa.string()),  # the type that the messages have; null where they say none
        ("topic", pa.string()),  # of a record that shows it
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("schema_id", pa.int32()),
    ]
)
WHAT = ("stream", "kind", "column", "before", "after")


def record_drift(lake: Lake, notes: Sequence[Mapping[str, Any]]) -> int:
    """Append notes (DRIFT, by name) that are news, and give how many were.

    A note is no news when it is what was last said of its stream and column. Raises LakehouseError.
    """
    for left in reversed(range(ATTEMPTS)):
        with lake.explained("record drift"):
            table = _open(lake)
            news = _news(notes, [] if table is None else _rows(table))
            if not news:
                return 0
            try:
                # On top of what was read or not at all: whoever comes second reads again, and finds nothing new.
                properties = CommitProperties(max_commit_retries=0)
                write_deltalake(
                    table or _create(lake),
                    pa.Table.from_pylist(news, DRIFT),
                    mode="append",
                    commit_properties=properties,
                )
                return len(news)
            except DeltaError:
                if not left:
                    raise
    return 0


def read_drift(lake: Lake, newest: int = 20) -> list[dict[str, Any]]:
    """Give the newest notes (columns of DRIFT), newest first; none when nothing ever drifted. Raises LakehouseError."""
    with lake.explained("read the drift"):
        table = _open(lake)
        rows = [] if table is None else _rows(table)
    return list(reversed(rows))[:newest]


def _open(lake: Lake) -> DeltaTable | None:
    try:
        return DeltaTable(lake.table_uri(TABLE), storage_options=dict(lake.storage_options))
    except TableNotFoundError:
        return None


def _create(lake: Lake) -> DeltaTable:
    """Create the table, empty, unless another worker just did; gives it as it was created."""
    options = dict(lake.storage_options)
    table = DeltaTable.create(lake.table_uri(TABLE), DRIFT, mode="ignore", storage_options=options)
    table.load_as_version(0)
    return table


def _rows(table: DeltaTable) -> list[dict[str, Any]]:
    """Give all notes, oldest first: they are few."""
    rows: list[dict[str, Any]] = table.to_pyarrow_table().select(DRIFT.names).to_pylist()
    return sorted(rows, key=lambda row: row["seen_at"])


def _news(notes: Iterable[Mapping[str, Any]], told: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what was the last thing said of the same column (or, without one, of the same kind)."""
    last = {_about(row): [row[name] for name in WHAT] for row in told}
    news = []
    for note in notes:
        row = {name: note.get(name) for name in DRIFT.names}
        if last.get(_about(row)) != [row[name] for name in WHAT]:
            last[_about(row)] = [row[name] for name in WHAT]
            news.append(row)
    return news


def _about(row: Mapping[str, Any]) -> tuple[Any, Any]:
    return row["stream"], row["column"] or row["kind"]

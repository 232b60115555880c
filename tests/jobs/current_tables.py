"""Current tables written by hand, as the pipeline keeps them: for what reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from contracts.model import Contract
from lakehouse.state.columns import current_schema

Row = Mapping[str, Any]


def write_current(lake: Path, contract: Contract, rows: Iterable[Row]) -> str:
    """Write a stream's current table anew, null where a row says nothing; give its URI."""
    schema = current_schema(contract)
    # A struct without children and a list of them cannot be told apart from null by every writer: left out.
    schema = pa.schema([f for f in schema if f.name != "_memo"])
    table = pa.Table.from_pylist([{"_stale": False, **row} for row in rows], schema=schema)
    uri = str(lake / contract.stream)
    write_deltalake(uri, table, mode="overwrite")
    return uri


def changed(rows: Iterable[Row], which: Callable[[Row], bool], **values: Any) -> list[Row]:
    """Give the rows, with other values in some of them."""
    return [{**row, **values} if which(row) else row for row in rows]

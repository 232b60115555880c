"""Tables made up for tests: rows that tell themselves apart by an id, and what every reader says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder

from contracts.model import Storage
from lakehouse import progress
from lakehouse.anchor import AnchorState
from lakehouse.kind import TableKind
from lakehouse.lake import Lake
from lakehouse.merge.merge_table import MergeTable
from lakehouse.shape import TableShape
from tests.reading import reader

COLUMNS = pa.schema([("id", pa.int64()), ("name", pa.string()), ("region", pa.string())])
KIND = TableKind("current", "", lambda contract: COLUMNS, lambda batch: True)
NOTHING = np.empty(0, np.int64)


def merge_table(
    lake: Lake,
    columns: pa.Schema = COLUMNS,
    partition_by: tuple[str, ...] = (),
    statistics: tuple[str, ...] = ("id",),
    pipeline: str = "p",
    storage: Storage = Storage.MERGE_ON_READ,
) -> MergeTable:
    """Give a table that is open; it is created when it is not there."""
    table = MergeTable(
        lake, KIND, TableShape("t", columns, partition_by, statistics, {}, storage), progress.Writer(pipeline)
    )
    if not table.open():
        table.create()
    return table


def state(number: int = 0, pipeline: str = "p") -> AnchorState:
    return AnchorState(pipeline, "s", commit=str(number), counts={"read": number})


def rows(ids: Iterable[int], **columns: Any) -> pa.Table:
    """Give rows with these ids; other columns follow from them where not given."""
    made = list(ids)
    values = {"id": made, "name": [f"n{i}" for i in made], "region": [f"r{i % 3}" for i in made], **columns}
    return pa.table({name: pa.array(values[name], COLUMNS.field(name).type) for name in COLUMNS.names})


class Writer:
    """Commits by id and keeps the truth beside it: id -> location of the one live row."""

    def __init__(self, table: MergeTable) -> None:
        self.table = table
        self.live: dict[int, int] = {}
        self.commits = 0

    def apply(self, append: Iterable[int] = (), remove: Iterable[int] = ()) -> None:
        gone = [self.live[i] for i in remove]
        added = list(append)
        self.commits += 1
        progress = {("topic", 0): self.commits}
        found = self.table.commit(rows(added), np.array(gone, np.int64), progress, state(self.commits))
        for i in set(remove):
            del self.live[i]
        self.live |= dict(zip(added, found.tolist(), strict=True))
        self.moved(*self.table.moved)

    def moved(self, old: npt.NDArray[np.int64], new: npt.NDArray[np.int64]) -> None:
        """Follow rows that were written again."""
        to = dict(zip(old.tolist(), new.tolist(), strict=True))
        self.live = {i: to.get(at, at) for i, at in self.live.items()}


def by_deltalake(lake: Lake, columns: str = "id", version: int | None = None) -> list[Any]:
    """Give a table's rows, sorted, as deltalake reads them; a single column's values bare.

    A table whose protocol has no vectors is read without any knowledge of them as well.
    """
    table = DeltaTable(lake.table_uri("t"), version=version, storage_options=dict(lake.storage_options))
    if "deletionVectors" not in (table.protocol().reader_features or ()):
        plain = table.to_pyarrow_table()
        query = QueryBuilder().register("t", table).execute("SELECT id FROM t").read_all()
        assert sorted(plain["id"].to_pylist()) == sorted(pa.table(query)["id"].to_pylist())
    found = QueryBuilder().register("t", table).execute(f"SELECT {columns} FROM t").read_all()
    return _sorted(tuple(row.values()) for row in pa.table(found).to_pylist())


def by_duckdb(lake: Lake, columns: str = "id") -> list[Any]:
    return _sorted(reader(lake).execute(f"SELECT {columns} FROM t").fetchall())


def by_location(table: MergeTable, columns: Iterable[str] = ("id",)) -> list[Any]:
    """Give the rows that the table itself says are live."""
    found: list[Any] = []
    for number in table.files():
        dead = table.dead(number) or ()
        listed = table.scan(number, list(columns)).to_pylist()
        found += [tuple(row.values()) for position, row in enumerate(listed) if position not in dead]
    return _sorted(found)


def _sorted(found: Iterable[tuple[Any, ...]]) -> list[Any]:
    bare = [row[0] if len(row) == 1 else row for row in found]
    return sorted(bare, key=lambda row: str(row) if not isinstance(row, int) else f"{row:020}")


def log_of(lake: Lake, version: int) -> list[Mapping[str, Any]]:
    import orjson

    data = lake.get(f"t/_delta_log/{version:020}.json")
    assert data is not None
    return [orjson.loads(line) for line in data.splitlines()]

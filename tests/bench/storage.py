"""Copy-on-write: our writer beside deltalake's MERGE with literal bucket predicates, on the same rows and changes."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from contracts.model import Storage
from lakehouse.kind import TableKind
from lakehouse.lake import Lake
from lakehouse.merge.indexed import Change, IndexedTable
from lakehouse.merge.keys import keys_of
from lakehouse.merge.merge_table import MergeTable
from lakehouse.progress import Writer
from lakehouse.shape import TableShape
from lakehouse.state.entries import StateEntries

BUCKETS = 16
FILLED_BY = 500_000  # rows of one commit
RECENT = 20  # the newest part of the rows, one in so many, and at least two batches
Longs = npt.NDArray[np.int64]
COLUMNS = pa.schema(
    [
        ("id", pa.int64()),
        ("email", pa.string()),
        ("status", pa.string()),
        ("balance", pa.decimal128(38, 2)),
        ("_order_major", pa.int64()),
        ("_order_minor", pa.int64()),
        ("_pending", pa.list_(pa.string())),
        ("_memo", pa.struct([("older", pa.list_(pa.string()))])),
    ]
)
KIND = TableKind("current", "", lambda contract: COLUMNS)


@dataclass(frozen=True)
class StorageCost:
    """What a commit costs on one table: medians; seconds, and bytes that were written."""

    writer: str
    rows: int
    batch: int
    keys: str  # random, or recent: of the newest rows
    seconds: float
    cpu_seconds: float
    bytes: int


def storage_costs(rows: int, batch: int, keys: str, commits: int = 3) -> list[StorageCost]:
    """Measure the same upserts by each writer, on a table of so many rows each."""
    writers: dict[str, Callable[[str], _Ours | _Merge]] = {
        "merge-on-read": _ours(Storage.MERGE_ON_READ),
        "copy-on-write": _ours(Storage.COPY_ON_WRITE),
        "deltalake MERGE": _Merge,
    }
    found = []
    for name, make in writers.items():
        with tempfile.TemporaryDirectory() as folder:
            writer = make(folder)
            for low in range(0, rows, FILLED_BY):
                writer.fill(_rows(np.arange(low, min(rows, low + FILLED_BY)), 0))
            told = [
                _measured(writer, folder, _chosen(rows, batch, keys, turn), turn + 1) for turn in range(commits + 1)
            ]
            seconds, cpu, written = (float(np.median([one[i] for one in told[1:]])) for i in range(3))
            found.append(StorageCost(name, rows, batch, keys, round(seconds, 3), round(cpu, 3), int(written)))
    return found


def _chosen(rows: int, batch: int, keys: str, turn: int) -> Longs:
    low = 0 if keys == "random" else rows - max(rows // RECENT, 2 * batch)
    return np.random.default_rng(turn).choice(np.arange(low, rows), batch, replace=False)


def _measured(writer: _Writer, folder: str, ids: Longs, turn: int) -> tuple[float, float, int]:
    changes, before = _rows(ids, turn), _size(folder)
    started, cpu = time.perf_counter(), time.process_time()
    writer.upsert(changes)
    return time.perf_counter() - started, time.process_time() - cpu, _size(folder) - before


def _size(folder: str) -> int:
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def _rows(ids: Longs, turn: int) -> pa.Table:
    count = len(ids)
    boxes = pa.array([f"{n * 2654435761 % 2**32:08x}{n:024x}@example.org" for n in range(4_096)])
    told = {
        "id": pa.array(ids),
        "email": boxes.take(pa.array((ids + turn) % 4_096)),
        "status": pa.array(["new", "active", "blocked"]).take(pa.array((ids + turn) % 3)),
        "balance": pa.array(ids % 100_000).cast(pa.decimal128(19, 0)).cast(COLUMNS.field("balance").type),
        "_order_major": pa.array(np.full(count, turn)),
        "_order_minor": pa.array(np.arange(count)),
    }
    return pa.Table.from_arrays([told.get(f.name, pa.nulls(count, f.type)) for f in COLUMNS], schema=COLUMNS)


class _Ours:
    """Our writer with its index."""

    def __init__(self, folder: str, storage: Storage) -> None:
        self._table = MergeTable(
            Lake.open(folder), KIND, TableShape("t", COLUMNS, (), ("id",), {}, storage), Writer("bench")
        )
        self._table.create()
        self._indexed = IndexedTable(self._table, StateEntries(["id"]), versions=False)

    def fill(self, rows: pa.Table) -> None:
        self._indexed.follow()
        self._indexed.commit(Change(rows, np.zeros(0, np.int64)), {}, None, operation="WRITE")

    def upsert(self, rows: pa.Table) -> None:
        self._indexed.follow()
        hits = self._indexed.last(keys_of([rows["id"]]))
        self._indexed.commit(Change(rows, hits.entries.location), {}, None, operation="MERGE")


class _Merge:
    """deltalake's MERGE on a table partitioned by a bucket of the key, the buckets of a batch named as literals."""

    def __init__(self, folder: str) -> None:
        self._uri = f"{folder}/t"

    def fill(self, rows: pa.Table) -> None:
        write_deltalake(self._uri, _bucketed(rows), mode="append", partition_by=["_bucket"])

    def upsert(self, rows: pa.Table) -> None:
        source = _bucketed(rows)
        buckets = ", ".join(str(b) for b in sorted(set(source["_bucket"].to_pylist())))
        lowest, highest = min(rows["id"].to_pylist()), max(rows["id"].to_pylist())
        predicate = f"t.id = s.id AND t._bucket IN ({buckets}) AND t.id >= {lowest} AND t.id <= {highest}"
        merge = DeltaTable(self._uri).merge(source, predicate, source_alias="s", target_alias="t")
        merge.when_matched_update_all().when_not_matched_insert_all().execute()


_Writer = _Ours | _Merge


def _ours(storage: Storage) -> Callable[[str], _Ours]:
    return lambda folder: _Ours(folder, storage)


def _bucketed(rows: pa.Table) -> pa.Table:
    plain = rows.drop_columns(["_pending", "_memo"])
    return plain.append_column("_bucket", pa.array(rows["id"].to_numpy() % BUCKETS, pa.int32()))


def show(rows: int, commits: int = 3) -> None:
    """Print the costs of small and large batches of random and of recent keys, one JSON object a line."""
    for batch in (10_000, 100_000):
        for keys in ("random", "recent"):
            for cost in storage_costs(rows, batch, keys, commits):
                print(orjson.dumps(asdict(cost)).decode(), flush=True)


if __name__ == "__main__":
    show(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)

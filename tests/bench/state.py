"""Current and history: rows that are there before, and what a commit costs by the size of the table."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder

from contracts.columns import OTHERS, QUARANTINE, WITHHELD_META, changes_schema, refined_schema
from contracts.model import Contract, Encoding
from lakehouse.commit import StreamTables
from lakehouse.kind import Batch
from lakehouse.lake import Lake
from lakehouse.merge.log import DeltaLog
from lakehouse.read import connect
from lakehouse.segments import Range, Section, write_segment
from lakehouse.state.table import StateTable
from tests.bench.contract import keys, write_contracts
from udfs.keys import pinned_keys

STATE = ("quarantine", "changes", "current")
WITH_HISTORY = ("quarantine", "changes", "history", "current")
FILLED_BY = 2_000_000  # rows of one commit
SECTION = 10_000  # rows of a section
TOPIC = "bench.customers"
PIPELINE = "bench"
Longs = npt.NDArray[np.int64]


def rows(ids: Longs, schema: pa.Schema, lsn: Longs, first: int = 0) -> pa.Table:
    """Give changes of customers as refine makes them; 36 different addresses a customer's number chooses from."""
    count = len(ids)
    boxes = pa.array([f"{n * 2654435761 % 2**32:08x}{n:024x}@example.org" for n in range(4_096)])
    told = {
        "id": pa.array(ids),
        "email": boxes.take(pa.array(ids % 4_096)),
        "phone": pa.array([f"***********{n:04d}" for n in range(1_000)]).take(pa.array(ids % 1_000)),
        "status": pa.array(["new", "active", "blocked"]).take(pa.array(ids % 3)),
        "balance": pa.array(ids % 100_000).cast(pa.decimal128(19, 0)).cast(schema.field("balance").type),
        "_op": pa.array(["u"]).take(pa.array(np.zeros(count, np.int8))),
        "_position_major": pa.array(lsn),
        "_position_minor": pa.array(lsn),
        "_topic": pa.array([TOPIC]).take(pa.array(np.zeros(count, np.int8))),
        "_partition": pa.array(np.zeros(count, np.int32)),
        "_offset": pa.array(np.arange(first, first + count)),
    }
    moment = pa.array(lsn * 1_000)
    return pa.Table.from_arrays([_column(f, told, moment, count) for f in schema], schema=schema)


def _column(field: pa.Field, told: dict[str, pa.Array], moment: pa.Array, count: int) -> pa.Array:
    if field.name in told:
        return told[field.name]
    return moment.cast(field.type) if pa.types.is_timestamp(field.type) else pa.nulls(count, field.type)


def fill(contract: Contract, folder: Path, count: int) -> None:
    """Fill a stream's state tables with so many rows, before it has any progress."""
    stream = StreamTables(Lake.open(str(folder)), contract, pipeline=PIPELINE, pins=pinned_keys(contract, keys()))
    stream.prepare()
    tables = _state_tables(stream)
    schema = changes_schema(contract)
    for low in range(0, count, FILLED_BY):
        ids = np.arange(low, min(count, low + FILLED_BY))
        batch = Batch(rows(ids, schema, np.arange(low, low + len(ids)) + 1), QUARANTINE.empty_table())
        tables[-1].open()
        for table in tables:
            table.fill(batch)


@dataclass(frozen=True)
class Costs:
    """What commits of one size cost on a table of so many rows; seconds, of CPU where it says so."""

    rows: int
    commits: tuple[float, ...]
    cpu: tuple[float, ...]
    cold_seconds: float  # of the first commit of a process that finds no snapshot of the index: it is made
    restart_seconds: float  # of the first commit of a process that finds one
    index_bytes: float  # a million keys, of all tables
    snapshot_bytes: int


@contextmanager
def filled(home: Path, count: int, tables: Sequence[str] = STATE) -> Iterator[tuple[Lake, Callable[[], StreamTables]]]:
    """Give, for the block, a lake with a table of so many rows, and what opens its stream as a new process does."""
    with tempfile.TemporaryDirectory(dir=home) as folder:
        contract = write_contracts(Path(folder) / "c", [("customers", TOPIC)], Encoding.JSON)[0]
        contract = dataclasses.replace(contract, tables=tuple(tables))
        lake = Lake.open(f"{folder}/lake")
        fill(contract, Path(folder) / "lake", count)
        yield lake, lambda: StreamTables(lake, contract, pipeline=PIPELINE, pins=pinned_keys(contract, keys()))


def costs(  # noqa: PLR0917 (one call of the benchmark)
    home: Path, count: int, batch: int, commits: int, tables: Sequence[str] = STATE, late: float = 0.0
) -> Costs:
    """Measure commits of random keys on a table of so many rows; a share of the changes is late."""
    with filled(home, count, tables) as (lake, opened):
        stream, found = opened(), []
        for number in range(commits + 1):
            found.append(commit_random(stream, lake, number, count, batch, late))
        wall, cpu = (tuple(one[i] for one in found[1:]) for i in (0, 1))
        held = _index_bytes(stream) / count * 1e6
        for table in _state_tables(stream):
            keep_index(table)
        size = sum(path.stat().st_size for path in Path(lake.uri).rglob("*.idx"))
        del stream
        again = commit_random(opened(), lake, commits + 1, count, batch, late)[0]
        return Costs(count, wall, cpu, found[0][0], again, held, size)


@dataclass(frozen=True)
class Reads:
    """What it costs to read current: seconds of a query over all rows and of one that asks for one key."""

    moment: str
    files: int
    dead: float  # share of all rows
    duckdb: float
    duckdb_key: float
    deltalake: float
    deltalake_key: float


def reads(home: Path, count: int, batch: int, commits: int) -> tuple[list[Reads], float]:
    """Measure reading a table as filled, after commits without maintenance, and after it; and its seconds."""
    with filled(home, count) as (lake, opened):
        stream = opened()
        stream.prepare()
        current = _state_tables(stream)[-1]
        found = [_read(lake, "as filled", current)]
        for number in range(commits):
            commit_random(stream, lake, number, count, batch, 0.0)
        found.append(_read(lake, f"after {commits} commits", current))
        started = time.perf_counter()
        current.indexed.maintain(float("inf"))
        seconds = time.perf_counter() - started
        return [*found, _read(lake, "after compaction", current)], seconds


def standing(lake: Lake, table: str) -> tuple[int, float, int]:
    """Give a table's live files, the share of its rows that are deleted, and its live rows."""
    snapshot = DeltaLog(lake, table).load()
    files = [] if snapshot is None else list(snapshot.files.values())
    rows, dead = sum(file.rows or 0 for file in files), sum(file.dead for file in files)
    return len(files), dead / max(rows, 1), rows - dead


def read_seconds(lake: Lake, table: str = "customers", where: str = "") -> float:
    """Give how long DuckDB takes for one query over a table."""
    with connect(lake) as duck:
        started = time.perf_counter()
        duck.execute(f"SELECT count(*), sum(balance), max(_offset) FROM {table} {where}").fetchall()
        return time.perf_counter() - started


def _read(lake: Lake, moment: str, table: StateTable) -> Reads:
    table.open()
    files, dead, _ = standing(lake, table.name)
    one = "WHERE id = 4711"
    found = [
        min(read(lake, where=where) for _ in range(3))
        for read in (read_seconds, _deltalake_seconds)
        for where in ("", one)
    ]
    return Reads(moment, files, dead, *found)


def _deltalake_seconds(lake: Lake, where: str = "") -> float:
    started = time.perf_counter()
    builder = QueryBuilder().register("customers", DeltaTable(lake.table_uri("customers")))
    builder.execute(f"SELECT count(*), sum(balance), max(_offset) FROM customers {where}").read_all()
    return time.perf_counter() - started


def keep_index(table: StateTable) -> None:
    """Have a table's index written beside it, whether it is worth it or not."""
    kept = table.indexed.kept
    if kept is not None:
        kept.unwritten = 1 << 62
        table.indexed.keep()
        kept.wait()


def commit_random(  # noqa: PLR0917 (one call of the benchmark)
    stream: StreamTables, lake: Lake, number: int, count: int, batch: int, late: float
) -> tuple[float, float]:
    """Commit changes of random keys of a filled table; give the seconds it took, and those of CPU."""
    random = np.random.default_rng(number)
    ids, first = random.integers(0, count, batch), number * batch
    lsn = 100_000_000_000 + first * 10 + np.arange(batch) * 10
    lsn = np.where(random.random(batch) < late, 50_000_000_000 + lsn % 1_000_000_000, lsn)
    told, refs = rows(ids, refined_schema(stream.contract), lsn, first), []
    for low in range(0, batch, SECTION):  # as refine writes them
        part = told.slice(low, SECTION)
        begin = first + low
        made = Section(
            stream.contract.stream,
            part,
            QUARANTINE.empty_table(),
            OTHERS.empty_table(),
            (Range(TOPIC, 0, begin - 1 if begin else None, begin, begin + len(part) - 1, len(part)),),
            WITHHELD_META.empty_table(),
        )
        refs += write_segment(lake, f"{number}-{low}", [made])
    started, cpu = time.perf_counter(), time.process_time()
    stream.commit(refs, gaps=lambda *_: False, now_ms=1_800_000_000_000)
    return time.perf_counter() - started, time.process_time() - cpu


def _state_tables(stream: StreamTables) -> list[StateTable]:
    return [table for table in stream.tables if isinstance(table, StateTable)]


def _index_bytes(stream: StreamTables) -> int:
    """Give the bytes of all key indexes of a stream."""
    return sum(run.nbytes for table in _state_tables(stream) for run in table.indexed.index.runs)

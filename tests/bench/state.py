"""Current and history: rows that are there before, and what a commit costs by the size of the table."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contracts.columns import OTHERS, QUARANTINE, WITHHELD_META, changes_schema, refined_schema
from contracts.model import Contract, Encoding
from lakehouse.commit import StreamTables
from lakehouse.kind import Batch
from lakehouse.lake import Lake
from lakehouse.read import connect
from lakehouse.segments import Range, Section, write_segment
from lakehouse.state.table import StateTable
from tests.bench.contract import keys, write_contracts
from udfs.keys import pinned_keys

STATE = ("quarantine", "changes", "current")
WITH_HISTORY = ("quarantine", "changes", "history", "current")
FILLED_BY = 2_000_000  # rows of one commit
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
    tables = [table for table in stream.tables if isinstance(table, StateTable)]
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
    cold_seconds: float  # of the first commit of a fresh process: the index is made
    index_bytes: float  # a million keys
    read_before: float  # seconds to read the table by DuckDB, as it was filled
    read_after: float  # after the commits


def costs(count: int, batch: int, commits: int, tables: Sequence[str] = STATE, late: float = 0.0) -> Costs:
    """Measure commits of random keys on a table of so many rows; a share of the changes is late."""
    with tempfile.TemporaryDirectory() as home:
        contract = write_contracts(Path(home) / "c", [("customers", TOPIC)], Encoding.JSON)[0]
        contract = dataclasses.replace(contract, tables=tuple(tables))
        lake = Lake.open(f"{home}/lake")
        fill(contract, Path(home) / "lake", count)
        before = _read_seconds(lake)
        stream = StreamTables(lake, contract, pipeline=PIPELINE, pins=pinned_keys(contract, keys()))
        found: list[tuple[float, float]] = []
        for number in range(commits + 1):
            found.append(_commit(stream, lake, number, count, batch, late))
        wall, cpu = (tuple(one[i] for one in found[1:]) for i in (0, 1))
        return Costs(count, wall, cpu, found[0][0], _index_bytes(stream) / count * 1e6, before, _read_seconds(lake))


def _commit(stream: StreamTables, lake: Lake, number: int, count: int, batch: int, late: float) -> tuple[float, float]:
    random = np.random.default_rng(number)
    ids, first = random.integers(0, count, batch), number * batch
    lsn = 100_000_000_000 + first * 10 + np.arange(batch) * 10
    lsn = np.where(random.random(batch) < late, 50_000_000_000 + lsn % 1_000_000_000, lsn)
    made = Section(
        stream.contract.stream,
        rows(ids, refined_schema(stream.contract), lsn, first),
        QUARANTINE.empty_table(),
        OTHERS.empty_table(),
        (Range(TOPIC, 0, first - 1 if first else None, first, first + batch - 1, batch),),
        WITHHELD_META.empty_table(),
    )
    refs = write_segment(lake, f"0-{number}", [made])
    started, cpu = time.perf_counter(), time.process_time()
    stream.commit(refs, gaps=lambda *_: False, now_ms=1_800_000_000_000)
    return time.perf_counter() - started, time.process_time() - cpu


def _index_bytes(stream: StreamTables) -> int:
    """Give the bytes of all key indexes of a stream."""
    tables = [table for table in stream.tables if isinstance(table, StateTable)]
    return sum(run.nbytes for table in tables for run in table.stream.tables[table.kind.name].index.runs)


def _read_seconds(lake: Lake) -> float:
    with connect(lake) as duck:
        started = time.perf_counter()
        duck.execute("SELECT count(*), sum(balance), max(_offset) FROM customers").fetchall()
        return time.perf_counter() - started

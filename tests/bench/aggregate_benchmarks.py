"""The benchmark of window aggregates: what they take from the rate, how large they are, and how soon they go on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from contracts.load import load_contract
from contracts.model import Encoding
from lakehouse.commit import StreamTables
from lakehouse.lake import Lake
from lakehouse.tables import INDEXED
from tests.bench import endtoend
from tests.bench.bench import Bench
from tests.bench.endtoend import PIPELINE, Backlog, Pipeline
from tests.bench.report import GIB, Section, rate_text

RECORDS = 3_000_000
MINUTE: dict[str, Any] = {
    "name": "per_minute", "window": {"type": "tumble", "size": "1 minute"}, "groupBy": ["status"],
    "measures": {"changes": "count()", "total": "sum(balance)"},
}  # fmt: skip
HOT: dict[str, Any] = {
    "name": "hot", "window": {"type": "hop", "size": "10 s", "slide": "1 s"}, "groupBy": ["bucket"],
    "measures": {"changes": "count()", "total": "sum(balance)", "most": "max(balance)"},
}  # fmt: skip
# What is kept, and its aggregates: each between two runs without one, for the machine may change its pace meanwhile.
ALONE: Sequence[dict[str, Any]] = ()
KEPT = (
    ("changes", ALONE),
    ("and an aggregate by minute and status", (MINUTE,)),
    ("changes", ALONE),
    ("and 10 hot windows x 1,000 groups", (HOT,)),
    ("changes", ALONE),
)


@dataclass(frozen=True)
class Left:
    """What a run has left of its aggregates."""

    rows: int
    megabytes: float
    again_seconds: float  # from a new process's first look to the end of a commit without records


def aggregates(bench: Bench) -> Section:
    """Measure the rate without aggregates, with a small one, and with one of 10,000 rows that change all the time."""
    count = RECORDS // (10 if bench.quick else 1)
    found: list[tuple[Backlog, Left | None]] = []
    for number, (name, kept) in enumerate(KEPT):
        what = bench.empty(Encoding.JSON, f"aggregates.{number}")
        pipeline = Pipeline(bench.running, bench.home / "aggregates", what, aggregates=kept, commit_seconds=2)
        found.append((endtoend.backlog(pipeline, count), _left(pipeline, kept)))
        shutil.rmtree(bench.home / "aggregates")
        bench.say(f"aggregates, {name}: {found[-1][0].rate:,.0f} records/s")
    rows = []
    for number, ((name, _), (run, left)) in enumerate(zip(KEPT, found, strict=True)):
        beside = [other.rate for other, _ in found[max(0, number - 1) : number + 2 : 2]]
        rows.append(_row(name, count, run, sum(beside) / len(beside), left))
    header = (
        "kept", "records", "records/s", "of changes alone", "wanted", "CPU us a record", "peak GiB",
        "rows of the aggregate", "MB", "restart s",
    )  # fmt: skip
    notes = [
        f"A job that has committed {endtoend.READY:,} records is shown all others at once: from then to the last "
        "commit; 4 partitions, parallelism 2, commit interval 2 s; event time passes 1 s in 32,000 records, "
        "so that all rows of the hot windows change with each commit. Changes alone: the mean of the runs before and "
        "after. CPU and peak: TaskManager and workers. MB: live files. Restart: a new process opens all tables of the "
        "stream, reads their indexes and sees that nothing is to be done."
    ]
    return Section("aggregates", "Window aggregates, end to end", header, rows, notes)


def _row(name: str, count: int, run: Backlog, base: float, left: Left | None) -> tuple[str, ...]:
    share = f"{run.rate / base:.0%}" if left else ""
    told = (f"{left.rows:,}", f"{left.megabytes:.1f}", f"{left.again_seconds:.2f}") if left else ("", "", "")
    wanted = "90 %" if left and "minute" in name else "-"
    return (name, f"{count:,}", rate_text(run.rate), share, wanted, f"{run.cpu:.1f}", f"{run.peak / GIB:.2f}", *told)


def _left(pipeline: Pipeline, kept: Sequence[dict[str, Any]]) -> Left | None:
    if not kept:
        return None
    (stream, _), lake = pipeline.streams[0], Lake.open(str(pipeline.lake_folder))
    table = DeltaTable(str(Path(lake.uri) / f"{stream}_{kept[0]['name']}"))
    live = pa.table(table.get_add_actions())["size_bytes"].to_pylist()
    began = time.monotonic()
    tables = StreamTables(lake, load_contract(pipeline.home / "contracts" / f"{stream}.odcs.yaml"), pipeline=PIPELINE,
                          pins=pipeline.pins())  # fmt: skip
    tables.commit([], gaps=lambda *_: False, now_ms=int(time.time() * 1000))
    indexed = [one for one in tables.tables if isinstance(one, INDEXED)]
    for one in indexed:
        one.indexed.follow()
    again = time.monotonic() - began
    counted = next(one.indexed.count() for one in indexed if one.name == f"{stream}_{kept[0]['name']}")
    return Left(counted, sum(live) / 1e6, again)

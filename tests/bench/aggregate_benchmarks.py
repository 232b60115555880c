"""The benchmark of window aggregates: what they take from the rate, how large they are, and how soon they go on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from contracts.load import load_contract
from contracts.model import Encoding
from lakehouse.commit import StreamTables
from lakehouse.lake import Lake
from tests.bench import endtoend
from tests.bench.bench import Bench
from tests.bench.endtoend import PIPELINE, Pipeline, Run
from tests.bench.generate import load
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
# What is kept -> its aggregates.
KEPT: dict[str, Sequence[dict[str, Any]]] = {
    "changes": (),
    "and an aggregate by minute and status": (MINUTE,),
    "and 10 hot windows x 1,000 groups": (HOT,),
}


@dataclass(frozen=True)
class Left:
    """What a run has left of its aggregates."""

    rows: int
    megabytes: float
    again_seconds: float  # from a new process's first look to the end of a commit without records


def aggregates(bench: Bench) -> Section:
    """Measure the rate without aggregates, with a small one, and with one of 10,000 rows that change all the time."""
    count = RECORDS // (10 if bench.quick else 1)
    what = bench.empty(Encoding.JSON, "aggregates")
    load(what, count)
    rows, base = [], 0.0
    for name, kept in KEPT.items():
        pipeline = Pipeline(bench.running, bench.home / "aggregates", what, aggregates=kept, commit_seconds=2)
        run = endtoend.throughput(pipeline, count)
        left = _left(pipeline, kept)
        shutil.rmtree(bench.home / "aggregates")
        base = base or run.whole
        rows.append(_row(name, count, run, base, left, "90 %" if kept == (MINUTE,) else "-"))
        bench.say(f"aggregates, {name}: {run.whole:,.0f} records/s")
    header = (
        "kept", "records", "records/s", "of changes alone", "wanted", "TaskManager and workers, peak GiB",
        "rows of the aggregate", "MB", "restart s",
    )  # fmt: skip
    notes = [
        "From the first commit to the last; 4 partitions, parallelism 2, commit interval 2 s; event time passes 1 s in "
        "16,000 records, so that all rows of the hot windows change with each commit. MB: live files. Restart: a new "
        "process opens all tables of the stream, reads their indexes and sees that nothing is to be done."
    ]
    return Section("aggregates", "Window aggregates, end to end", header, rows, notes)


def _row(name: str, count: int, run: Run, base: float, left: Left | None, wanted: str) -> tuple[str, ...]:
    share = "" if run.whole == base else f"{run.whole / base:.0%}"
    told = (f"{left.rows:,}", f"{left.megabytes:.1f}", f"{left.again_seconds:.2f}") if left else ("", "", "")
    return (name, f"{count:,}", rate_text(run.whole), share, wanted, f"{run.peaks['together'] / GIB:.2f}", *told)


def _left(pipeline: Pipeline, kept: Sequence[dict[str, Any]]) -> Left | None:
    if not kept:
        return None
    (stream, _), lake = pipeline.streams[0], Lake.open(str(pipeline.lake_folder))
    table = DeltaTable(str(Path(lake.uri) / f"{stream}_{kept[0]['name']}"))
    actions = table.get_add_actions(flatten=True).to_pydict()
    began = time.monotonic()
    tables = StreamTables(lake, load_contract(pipeline.home / "contracts" / f"{stream}.odcs.yaml"), pipeline=PIPELINE,
                          pins=pipeline.pins())  # fmt: skip
    tables.commit([], gaps=lambda *_: False, now_ms=int(time.time() * 1000))
    for one in tables.tables:
        if hasattr(one, "indexed"):
            one.indexed.follow()
    again = time.monotonic() - began
    counted = next(one.indexed.count() for one in tables.tables if one.name == f"{stream}_{kept[0]['name']}")
    return Left(counted, sum(actions["size_bytes"]) / 1e6, again)

"""The benchmarks of current and history: each measures and gives its section of docs/benchmarks.md."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from contracts.model import Encoding
from lakehouse.merge.index_memory import BUDGET
from tests.bench import beside, endtoend, many_tables, state, sustained, yardstick
from tests.bench.bench import Bench
from tests.bench.curve import curve
from tests.bench.endtoend import Pipeline
from tests.bench.generate import Load
from tests.bench.report import GIB, Section, rate_text

KEYS, RECORDS = 500_000, 3_000_000
FILLED, FILLED_RECORDS = 20_000_000, 1_000_000
# What is kept -> (the tables, what its rate is compared with, what is wanted; {} is a rate).
KEPT: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "changes": (("quarantine", "changes"), "", "-"),
    "changes, current": (state.STATE, "changes", "{}"),
    "changes, history, current": (state.WITH_HISTORY, "changes, current", "70 %"),
}
COMMITS = 8
READ_COMMITS = 40
TABLES, TABLE_KEYS, TABLE_RECORDS = 10, 5_000_000, 2_000_000
PACE, SUSTAINED_KEYS = 20_000, 1_000_000


def rates(bench: Bench) -> Section:
    """Measure the rate without tables of keys, with current, and with history on top: into empty tables, over many."""
    scale = 10 if bench.quick else 1
    rows = _rates(bench, "empty", KEYS // scale, RECORDS // scale, 150_000)
    rows += _rates(bench, "filled", FILLED // scale, FILLED_RECORDS // scale, 100_000)
    header = ("rows before", "keys", "changes", "tables", "changes/s", "share", "wanted", "CPU us a change",
              "start-up s", "peak GiB")  # fmt: skip
    notes = [
        f"A job that has committed {endtoend.READY:,} changes is shown all others at once: from then to the last "
        "commit; 4 partitions, parallelism 2, commit interval 2 s, uniform keys, local disk. CPU: TaskManager and "
        "workers. Start-up: from the submission to the first commit, the indexes made from the tables.",
        "The hand-written consumer keeps current by deltalake's MERGE (one row a key and commit), changes by append.",
    ]
    return Section("state", "Current and history, end to end", header, rows, notes)


def _rates(bench: Bench, name: str, keys: int, count: int, wanted: int) -> list[tuple[str, ...]]:
    filled = keys if name == "filled" else 0
    found: dict[str, float] = {}
    rows = []
    for number, (kept, (tables, of, goal)) in enumerate(KEPT.items()):
        fills = filled and kept != "changes"
        what = replace(bench.empty(Encoding.JSON, f"state.{name}.{number}"), keys=keys)
        pipeline = Pipeline(
            bench.running, bench.home / "state", what, tables=tables, commit_seconds=2,
            prepare=(lambda contract, lake: state.fill(contract, lake, filled)) if fills else None,
        )  # fmt: skip
        run = endtoend.backlog(pipeline, count)
        shutil.rmtree(bench.home / "state")
        found[kept] = run.rate
        share = f"{run.rate / found[of]:.0%} of {of}" if of else ""
        rows.append(
            (f"{filled if fills else 0:,}", f"{keys:,}", f"{count:,}", f"quarantine, {kept}", rate_text(run.rate),
             share, goal.format(rate_text(wanted)), f"{run.cpu:.1f}", f"{run.startup_seconds:.1f}",
             f"{run.peak / GIB:.2f}")
        )  # fmt: skip
        bench.say(f"{name}, {kept}: {run.rate:,.0f} changes/s")
    return [*rows, _merging(bench, what, keys, count, found["changes, current"], filled)]


def _merging(  # noqa: PLR0917 (one case)
    bench: Bench, what: Load, keys: int, count: int, ours: float, filled: int
) -> tuple[str, ...]:
    """Measure the hand-written consumer with MERGE on a part of the changes."""
    lake = bench.home / "merging"
    share = min(count, 200_000 if filled else 600_000)
    if filled:
        yardstick.fill(str(lake), keys)
    theirs = yardstick.run(bench.running.kafka_address, what.topics, Encoding.JSON, str(lake), share, merge=True)
    shutil.rmtree(lake)
    return (f"{filled:,}", f"{keys:,}", f"{share:,}", "hand-written, MERGE", rate_text(theirs),
            f"current is {ours / theirs:.1f} times as fast", "-", "-", "-", "-")  # fmt: skip


def commit_costs(bench: Bench) -> Section:
    """Measure what a commit costs by the size of the table, in this process."""
    sizes = (100_000, 400_000) if bench.quick else (1_000_000, 4_000_000, 20_000_000)
    batch = 10_000 if bench.quick else 100_000
    kinds = {"current": (state.STATE, 0.0), "current and history": (state.WITH_HISTORY, 0.0),
             "the same, 1 % late": (state.WITH_HISTORY, 0.01)}  # fmt: skip
    rows: list[tuple[str, ...]] = []
    lines: dict[str, list[tuple[float, float]]] = {}
    for name, (tables, late) in kinds.items():
        for size in sizes[: 2 if late else None]:  # filling the largest once more would tell little
            found = state.costs(bench.folder, size, batch, COMMITS, tables, late)
            lines.setdefault(name, []).append((size, float(np.median(found.cpu))))
            rows.append(_cost_row(name, found, lines[name][0][1]))
            bench.say(f"{name}, {size:,} rows: {np.median(found.commits):.2f} s a commit")
    header = ("tables", "rows", "commit s", "CPU s", "of the smallest", "longest s", "first commit, cold s",
              "with a snapshot s", "snapshot MiB", "MiB a million keys")  # fmt: skip
    notes = [
        f"{COMMITS} commits of {batch:,} changes of random keys, changes kept as well; medians. Wanted: CPU within 1.5 "
        "times over the sizes.",
        "First commits of a process: cold it makes the indexes of all tables from their key columns; with a snapshot "
        "it takes that up and completes it. MiB: of the indexes of all tables, by the rows of current.",
    ]
    picture = curve(lines, f"rows of the table before, commits of {batch:,} changes", "CPU seconds of a commit")
    return Section("costs", "What a commit costs by the size of the table", header, rows, notes, picture)


def _cost_row(name: str, found: state.Costs, smallest: float) -> tuple[str, ...]:
    cpu = float(np.median(found.cpu))
    return (
        name, f"{found.rows:,}", f"{np.median(found.commits):.2f}", f"{cpu:.2f}", f"{cpu / smallest:.2f}",
        f"{max(found.commits):.2f}", f"{found.cold_seconds:.1f}", f"{found.restart_seconds:.1f}",
        f"{found.snapshot_bytes / 2**20:.0f}", f"{found.index_bytes / 2**20:.0f}",
    )  # fmt: skip


def read_costs(bench: Bench) -> Section:
    """Measure what deleted rows and small files cost readers, and what compaction gives back."""
    count, batch = (400_000, 10_000) if bench.quick else (4_000_000, 100_000)
    found, seconds = state.reads(bench.folder, count, batch, READ_COMMITS)
    rows = [
        (one.moment, str(one.files), f"{one.dead:.0%}", f"{one.duckdb:.2f}", f"{one.duckdb_key:.2f}",
         f"{one.deltalake:.2f}", f"{one.deltalake_key:.2f}")
        for one in found
    ]  # fmt: skip
    header = ("current", "files", "deleted rows", "DuckDB s", "one key s", "deltalake s", "one key s")
    notes = [
        f"{count:,} rows, {READ_COMMITS} commits of {batch:,} changes of random keys with no maintenance between them; "
        f"then all compaction at once, {seconds:.1f} s (in a job it is done in slices between commits). The quickest "
        "of three queries over all rows (count, sum, maximum), and for one key; opening the table included."
    ]
    return Section("reads", "What reading costs, and what maintenance gives back", header, rows, notes)


def refining_beside(bench: Bench) -> Section:
    """Measure how much of its rate refine keeps while a commit runs in the same process."""
    count, batch, seconds = (400_000, 10_000, 3.0) if bench.quick else (5_000_000, 100_000, 15.0)
    found = beside.measure(bench.folder, count, batch, seconds)
    row = (rate_text(found.alone), rate_text(found.beside), f"{found.beside / found.alone:.0%}", str(found.commits),
           f"{found.commit_seconds:.2f}")  # fmt: skip
    header = ("refine alone, records/s", "while commits run", "share", "commits", "mean commit s")
    notes = [
        f"One process, one thread that refines JSON, one that commits {batch:,} changes after another to current and "
        f"history of {count:,} keys: the share is what the interpreter's lock and the cores leave."
    ]
    return Section("beside", "Refine while a commit runs", header, [row], notes)


def many_tables_at_once(bench: Bench) -> Section:
    """Measure ten large tables in one job: memory, and starts without and with snapshots of the indexes."""
    scale = 20 if bench.quick else 1
    keys, count = TABLE_KEYS // scale, TABLE_RECORDS // scale
    what = replace(bench.empty(Encoding.JSON, "tables", topics=TABLES, partitions=2), keys=keys, whole=True)
    pipeline = Pipeline(
        bench.running, bench.home / "tables", what, tables=state.STATE, commit_seconds=2,
        prepare=many_tables.Filler(keys),
    )  # fmt: skip
    found = many_tables.measure(pipeline, count, bench.say)
    shutil.rmtree(bench.home / "tables")
    rows = [
        (one.name, f"{one.first_seconds:.1f}", f"{one.all_seconds:.1f}", rate_text(one.rate),
         f"{one.memory / GIB:.2f}", f"{one.anonymous / GIB:.2f}")
        for one in found
    ]  # fmt: skip
    header = ("start", "first table s", "all tables s", "changes/s", "peak GiB", "workers without files GiB")
    notes = [
        f"{TABLES} tables of {keys:,} keys (quarantine, changes, current), {count // 2:,} changes after each start, "
        "spread over all; seconds from the submission to the first commit. Wanted: all tables within 30 s of a start "
        "with snapshots.",
        f"Indexes: {TABLES * keys * 32 / GIB:.2f} GiB, of which a worker keeps at most {BUDGET / GIB:.0f} GiB in "
        "memory; the rest is mapped from files. Peak: TaskManager and workers with those pages; the last column: of "
        "the workers, without pages of files.",
    ]
    return Section("tables", "Ten large tables in one job", header, rows, notes)


def sustained_pace(bench: Bench) -> Section:
    """Measure whether an even pace leaves commits, files, reading and memory as they are."""
    minutes = 1.0 if bench.quick else bench.minutes
    what = replace(bench.empty(Encoding.JSON, "sustained"), keys=SUSTAINED_KEYS)
    pipeline = Pipeline(bench.running, bench.home / "sustained", what, tables=state.WITH_HISTORY)
    parts = sustained.measure(pipeline, PACE, minutes * 60, bench.say)
    shutil.rmtree(bench.home / "sustained")
    header = ("part", "commit p50 s", "p99 s", "row waits p50 s", "p99 s", "files", "deleted rows", "rows",
              "read s", "memory GiB", "workers without files GiB")  # fmt: skip
    notes = [
        f"{PACE:,} changes/s of {SUSTAINED_KEYS:,} keys for {minutes:g} minutes in {len(parts)} parts; quarantine, "
        "changes, history and current, commit interval 5 s, maintenance by the job itself. Commit: as the job "
        "reports it; row waits: from Kafka's timestamp to the commit of current. Files: of current and history; "
        "deleted rows: the larger share of the two; read: one DuckDB query over current. Memory: TaskManager and "
        "workers. Medians but for p99. Wanted: flat.",
    ]
    return Section("sustained", "An even pace for a long time", header, _sustained_rows(parts), notes)


def _sustained_rows(parts: Sequence[sustained.Part]) -> list[tuple[str, ...]]:
    return [
        (f"{number} of {len(parts)}", f"{one.commit_p50:.2f}", f"{one.commit_p99:.2f}", f"{one.wait_p50:.1f}",
         f"{one.wait_p99:.1f}", str(one.files), f"{one.dead:.0%}", f"{one.rows:,}", f"{one.read:.2f}",
         f"{one.memory / GIB:.2f}", f"{one.anonymous / GIB:.2f}")
        for number, one in enumerate(parts, 1)
    ]  # fmt: skip

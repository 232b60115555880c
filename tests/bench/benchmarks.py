"""The benchmarks by name: each measures and gives its section of docs/benchmarks.md."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import numpy as np

from contracts.model import Encoding
from jobs.stack import Stack
from tests.bench import ceiling, endtoend, isolation, parts, state, yardstick
from tests.bench.as_avro import KEY_SCHEMA, VALUE_SCHEMA, AvroRecords
from tests.bench.as_json import MEAN_BYTES
from tests.bench.endtoend import Pipeline, Run
from tests.bench.generate import Load, load
from tests.bench.records import KEYS, Records
from tests.bench.report import Section

GIB = 2**30
MANY_TOPICS, MANY_PARTITIONS = 50, 12
PACE, PACED_SECONDS = 10_000, 60.0
MEMORY_PACE, MEMORY_SECONDS = 20_000, 600.0
TARGETS = {Encoding.JSON: 250_000, Encoding.AVRO: 300_000}
FLINK = {"metrics.fetcher.update-interval": "500"}


@dataclass
class Bench:
    """What the benchmarks share: a stack, loaded topics, and results that several sections need."""

    home: Path
    records: int
    quick: bool = False
    _stack: Stack | None = None
    _loads: dict[tuple[Encoding, int], Load] = field(default_factory=dict)
    _runs: dict[tuple[Encoding, int], Run] = field(default_factory=dict)

    @contextmanager
    def stack(self) -> Iterator[Stack]:
        """Give a running stack, for the block and no longer."""
        with Stack(self.home, ("kafka", "flink", "registry"), {"flink": FLINK}) as stack:
            self._stack = stack
            try:
                yield stack
            finally:
                self._stack = None

    @property
    def running(self) -> Stack:
        """Give the stack that runs."""
        if self._stack is None:
            raise RuntimeError("start the stack first")
        return self._stack

    @property
    def registry(self) -> str:
        """Give the registry's address."""
        return self.running.registry_url

    def load(self, encoding: Encoding, topics: int = 1, partitions: int = 4) -> Load:
        """Give topics that hold the records, written when they are first asked for."""
        key = (encoding, topics)
        if key not in self._loads:
            self._loads[key] = self.empty(encoding, f"load{topics}", topics, partitions)
            load(self._loads[key], self.records)
        return self._loads[key]

    def empty(self, encoding: Encoding, name: str, topics: int = 1, partitions: int = 4) -> Load:
        """Give topics that hold nothing yet."""
        ids = register(self.registry) if encoding is Encoding.AVRO else (0, 0)
        names = [f"bench.{encoding.value}.{name}.{n}" for n in range(topics)]
        return Load(self.running.kafka_address, names, partitions, encoding, ids)

    def run(self, encoding: Encoding, topics: int = 1, partitions: int = 4) -> Run:
        """Give the result of one end-to-end run, made when it is first asked for."""
        key = (encoding, topics)
        if key not in self._runs:
            what = self.load(encoding, topics, partitions)
            registry = self.registry if encoding is Encoding.AVRO else None
            pipeline = Pipeline(self.running, self.home / "run", what, registry)
            self._runs[key] = endtoend.throughput(pipeline, self.records)
            shutil.rmtree(self.home / "run")
        return self._runs[key]


def register(registry: str) -> tuple[int, int]:
    """Register the schemas of key and value, and give their ids."""
    found = []
    for subject, schema in (("bench-key", KEY_SCHEMA), ("bench-value", VALUE_SCHEMA)):
        answer = httpx.post(
            f"{registry}/subjects/{subject}/versions", json={"schema": schema}, timeout=10.0, trust_env=False
        )
        found.append(int(answer.raise_for_status().json()["id"]))
    return found[0], found[1]


def throughput(bench: Bench) -> Section:
    """Measure the rate from a topic to committed rows, JSON and Avro."""
    rows = [_run_row(e.value, bench.run(e), _bytes(e), TARGETS[e]) for e in (Encoding.JSON, Encoding.AVRO)]
    header = (
        "", "records", "bytes", "records/s", "wanted", "start-up s", "steady s", "JVM cores", "Python cores",
        "broker cores", "peak GiB", "commits",
    )  # fmt: skip
    notes = [
        f"4 partitions, parallelism 2; keys: {KEYS:,}, uniform; one email hash, one phone mask, one dropped field, "
        "five rules; commit interval 5 s; local disk. Memory is TaskManager and Python workers together (wanted: at "
        "most 4 GiB)."
    ]
    return Section("throughput", "End to end: Kafka to committed Delta rows", header, rows, notes)


def _run_row(name: str, run: Run, width: float, wanted: int | None) -> tuple[str, ...]:
    cores = [f"{run.cores.get(role, 0.0):.2f}" for role in ("taskmanager", "python workers", "broker")]
    return (
        name, f"{run.records:,}", f"{width:.0f}", _rate(run.steady),
        _rate(wanted) if wanted else "-", f"{run.startup_seconds:.1f}", f"{run.steady_seconds:.1f}", *cores,
        f"{run.peaks['together'] / GIB:.2f}", str(run.commits),
    )  # fmt: skip


def shares(bench: Bench) -> Section:
    """Measure each part of the hot path alone."""
    count = 100_000 if bench.quick else 500_000
    found = {e: parts.measure(e, count) for e in (Encoding.JSON, Encoding.AVRO)}
    many = parts.measure(Encoding.JSON, count, streams=MANY_TOPICS, partitions=MANY_PARTITIONS)
    columns = [*found.values(), many]
    rows = [(name, *(f"{column[i].cpu:.2f}" for column in columns)) for i, name in enumerate(parts.NAMES)]
    rows.append(("together", *(f"{sum(s.cpu for s in column):.2f}" for column in columns)))
    header = ("part", "JSON", "Avro", f"JSON, {MANY_TOPICS} streams in each batch")
    notes = [f"Microseconds of CPU a record, batches of {parts.BATCH:,}, one process, without Flink and Kafka."]
    return Section("parts", "Where the Python time goes", header, rows, notes)


def ceilings(bench: Bench) -> Section:
    """Measure the raw source, and the source with the hand-over to Python."""
    what = bench.load(Encoding.JSON)
    names = {"source": "Kafka source alone", "handover": "and the hand-over of Arrow batches to Python"}
    rows = []
    for kind in ceiling.KINDS:
        found = ceiling.measure(bench.running, what.topics, kind, bench.records)
        costs = [f"{found.micros(role):.2f}" for role in ("taskmanager", "python workers", "broker")]
        rows.append((names[kind], _rate(found.rate), f"{found.startup_seconds:.1f}", *costs))
    header = ("job", "records/s", "start-up s", "TaskManager us", "Python us", "broker us")
    return Section(
        "ceiling",
        "The ceiling: jobs that do nothing with the records",
        header,
        rows,
        [_load_note(bench), "us: microseconds of CPU a record."],
    )


def against_yardstick(bench: Bench) -> Section:
    """Measure the hand-written consumer, and the ratio."""
    rows = []
    for encoding in (Encoding.JSON, Encoding.AVRO):
        what, lake = bench.load(encoding), bench.home / "yardstick"
        count = min(bench.records, 1_000_000)
        theirs = yardstick.run(bench.running.kafka_address, what.topics, encoding, str(lake), count)
        shutil.rmtree(lake)
        ours = bench.run(encoding).steady
        rows.append((encoding.value, _rate(theirs), _rate(ours), f"{ours / theirs:.1f}", "2.3"))
    header = ("encoding", "hand-written, records/s", "Tidegate, records/s", "ratio", "wanted")
    notes = ["One process: confluent-kafka, orjson or fastavro, plain Python, deltalake; same rules, masks and tables."]
    return Section("yardstick", "Against a hand-written consumer", header, rows, notes)


def many_topics(bench: Bench) -> Section:
    """Measure 50 topics with 12 partitions each through one job."""
    one, many = bench.run(Encoding.JSON), bench.run(Encoding.JSON, MANY_TOPICS, MANY_PARTITIONS)
    rows = [
        (name, f"{run.records:,}", _rate(run.steady), f"{run.startup_seconds:.1f}",
         f"{run.peaks['together'] / GIB:.2f}", f"{run.steady / one.steady:.0%}")
        for name, run in (("1 x 4", one), (f"{MANY_TOPICS} x {MANY_PARTITIONS}", many))
    ]  # fmt: skip
    header = ("topics x partitions", "records", "records/s, steady", "start-up s", "memory peak GiB", "of one topic")
    return Section("topics", "Many topics through one job", header, rows, ["Wanted: at least 60 %."])


STATE_KEYS, STATE_RECORDS = 500_000, 3_000_000
FILLED, FILLED_RECORDS = 20_000_000, 1_000_000


def state_rates(bench: Bench) -> Section:
    """Measure the rate with current, and with history on top: into empty tables, and over a large one."""
    scale = 10 if bench.quick else 1
    cases = (("empty", STATE_KEYS // scale, STATE_RECORDS // scale, 0, 150_000),
             ("filled", FILLED // scale, FILLED_RECORDS // scale, FILLED // scale, 100_000))  # fmt: skip
    rows = []
    for name, keys, count, filled, wanted in cases:
        what = replace(bench.empty(Encoding.JSON, f"state.{name}"), keys=keys)
        load(what, count)
        rates: dict[str, float] = {}
        for tables in (state.STATE, state.WITH_HISTORY):
            pipeline = Pipeline(
                bench.running, bench.home / "state", what, tables=tables, commit_seconds=2,
                prepare=(lambda contract, lake, n=filled: state.fill(contract, lake, n)) if filled else None,
            )  # fmt: skip
            found = endtoend.throughput(pipeline, count)
            shutil.rmtree(bench.home / "state")
            kept = "history" if tables is state.WITH_HISTORY else "current"
            rates[kept] = found.whole
            share = f"{rates['history'] / max(rates['current'], 1):.0%} of current" if kept == "history" else ""
            goal = "70 %" if share else _rate(wanted)
            rows.append(
                (f"{filled:,}", f"{keys:,}", f"{count:,}", f"quarantine, changes, {kept}", _rate(found.whole),
                 share, goal, f"{found.startup_seconds:.1f}", f"{found.peaks['together'] / GIB:.2f}")
            )  # fmt: skip
        rows.append(_merging(bench, what, keys, count, rates["current"], filled))
    header = ("rows before", "keys", "changes", "tables", "changes/s", "share", "wanted", "start-up s", "peak GiB")
    notes = [
        "From the first commit to the last; 4 partitions, parallelism 2, commit interval 2 s, uniform keys, local "
        "disk.",
        "The hand-written consumer keeps current by deltalake's MERGE (one row a key and commit), changes by append.",
    ]
    return Section("state", "Current and history, end to end", header, rows, notes)


def _merging(bench: Bench, what: Load, keys: int, count: int, ours: float, filled: int) -> tuple[str, ...]:
    """Measure the hand-written consumer with MERGE on a part of the changes."""
    lake = bench.home / "merging"
    share = min(count, 200_000 if filled else 600_000)
    if filled:
        yardstick.fill(str(lake), keys)
    theirs = yardstick.run(bench.running.kafka_address, what.topics, Encoding.JSON, str(lake), share, merge=True)
    shutil.rmtree(lake)
    return (f"{filled:,}", f"{keys:,}", f"{share:,}", "hand-written, MERGE", _rate(theirs),
            f"current is {ours / theirs:.1f} times as fast", "-", "-", "-")  # fmt: skip


def state_costs(bench: Bench) -> Section:
    """Measure what a commit costs by the size of the table, in this process."""
    sizes = (100_000, 400_000) if bench.quick else (1_000_000, 4_000_000, 20_000_000)
    batch, rows = (10_000 if bench.quick else 100_000), []
    for tables, late in ((state.STATE, 0.0), (state.WITH_HISTORY, 0.0), (state.WITH_HISTORY, 0.01)):
        for size in sizes:
            found = state.costs(size, batch, 8, tables, late)
            kept = "current and history" if "history" in tables else "current"
            rows.append(
                (f"{kept}, {late:.0%} late" if late else kept, f"{size:,}", f"{np.median(found.commits):.2f}",
                 f"{np.median(found.cpu):.2f}", f"{max(found.commits):.2f}", f"{found.cold_seconds:.1f}",
                 f"{found.index_bytes / 2**20:.0f}", f"{found.read_before:.2f}", f"{found.read_after:.2f}")
            )  # fmt: skip
    header = ("tables", "rows", "commit s", "CPU s", "longest s", "first commit s", "MiB a million keys",
              "read before s", "read after s")  # fmt: skip
    notes = [
        f"Eight commits of {batch:,} changes of random keys, changes kept as well; medians. The first commit of a "
        "fresh process makes the index of all keys. Wanted: within 1.5 times over the sizes. Read: one DuckDB query "
        "over the whole of current."
    ]
    return Section("costs", "What a commit costs by the size of the table", header, rows, notes)


def commit_latency(bench: Bench) -> Section:
    """Measure how long rows take from Kafka to a commit at an even pace."""
    seconds = 20.0 if bench.quick else PACED_SECONDS
    what = bench.empty(Encoding.JSON, "paced")
    found = endtoend.latency(Pipeline(bench.running, bench.home / "latency", what), PACE, seconds)
    shutil.rmtree(bench.home / "latency")
    row = (_rate(found.rate), f"{found.rows:,}", f"{found.p50:.2f}", f"{found.p99:.2f}", f"{found.most:.2f}")
    header = ("records/s written", "rows", "p50 s", "p99 s", "longest s")
    notes = ["From Kafka's timestamp to the Delta log entry being readable; interval 5 s. Wanted: p99 at most 10 s."]
    return Section("latency", "Commit latency", header, [row], notes)


def one_slow_stream(bench: Bench) -> Section:
    """Measure one stream while the storage of another is so slow that its commit takes minutes."""
    with isolation.slow_stack(bench.home / "isolation") as (stack, proxy, direct):
        found = isolation.measure(stack, proxy, direct, bench.home / "isolation", 60.0 if bench.quick else 180.0)
    shutil.rmtree(bench.home / "isolation")
    row = (f"{found.slow_seconds:.0f}", f"{found.fast_worst:.1f}", str(found.delayed_requests))
    header = ("slow stream stood still for s", "other stream at most s", "requests refused")
    notes = [
        "S3 behind a proxy that refuses every request about one table (503, after 10 s) for three minutes. Wanted: the "
        "other stream under 30 s."
    ]
    return Section("isolation", "One slow stream", header, [row], notes)


def memory(bench: Bench) -> Section:
    """Measure the memory of TaskManager and workers over ten minutes."""
    seconds = 60.0 if bench.quick else MEMORY_SECONDS
    what = bench.empty(Encoding.JSON, "memory")
    found = endtoend.memory(Pipeline(bench.running, bench.home / "memory", what), MEMORY_PACE, seconds)
    shutil.rmtree(bench.home / "memory")
    thirds = [np.median(part) / GIB for part in np.array_split(np.array(found), 3)]
    row = (f"{seconds / 60:.0f}", *(f"{third:.2f}" for third in thirds), f"{max(found) / GIB:.2f}")
    header = ("minutes", "first third GiB", "second third GiB", "last third GiB", "peak GiB")
    notes = [f"TaskManager and Python workers, {MEMORY_PACE:,} records/s. Wanted: at most 4 GiB, flat."]
    return Section("memory", "Memory over time", header, [row], notes)


def _bytes(encoding: Encoding) -> float:
    if encoding is Encoding.JSON:
        return MEAN_BYTES
    values = AvroRecords(Records(0, 1_000)).values()
    return sum(len(value) for value in values.to_pylist()) / len(values)


def _load_note(bench: Bench) -> str:
    return f"{bench.records:,} JSON records of {MEAN_BYTES} bytes, 4 partitions, parallelism 2."


def _rate(value: float) -> str:
    return f"{value:,.0f}"


# Name -> (what measures it, whether it needs the shared stack, whether only --long runs it)
BENCHMARKS: Mapping[str, tuple[Callable[[Bench], Section], bool, bool]] = {
    "parts": (shares, False, False),
    "ceiling": (ceilings, True, False),
    "throughput": (throughput, True, False),
    "yardstick": (against_yardstick, True, False),
    "topics": (many_topics, True, False),
    "latency": (commit_latency, True, False),
    "costs": (state_costs, False, False),
    "state": (state_rates, True, False),
    "isolation": (one_slow_stream, False, False),
    "memory": (memory, True, True),
}

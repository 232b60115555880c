"""The benchmarks by name: each measures and gives its section of docs/benchmarks.md."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping

import numpy as np

from contracts.model import Encoding
from tests.bench import aggregate_benchmarks, ceiling, endtoend, isolation, parts, state_benchmarks, yardstick
from tests.bench.as_avro import AvroRecords
from tests.bench.as_json import MEAN_BYTES
from tests.bench.bench import Bench
from tests.bench.endtoend import Pipeline, Run
from tests.bench.records import KEYS, Records
from tests.bench.report import GIB, Section, rate_text

MANY_TOPICS, MANY_PARTITIONS = 50, 12
PACE, PACED_SECONDS = 10_000, 60.0
MEMORY_PACE, MEMORY_SECONDS = 20_000, 600.0
TARGETS = {Encoding.JSON: 250_000, Encoding.AVRO: 300_000}


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
        name, f"{run.records:,}", f"{width:.0f}", rate_text(run.steady),
        rate_text(wanted) if wanted else "-", f"{run.startup_seconds:.1f}", f"{run.steady_seconds:.1f}", *cores,
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
        rows.append((names[kind], rate_text(found.rate), f"{found.startup_seconds:.1f}", *costs))
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
        rows.append((encoding.value, rate_text(theirs), rate_text(ours), f"{ours / theirs:.1f}", "2.3"))
    header = ("encoding", "hand-written, records/s", "Tidegate, records/s", "ratio", "wanted")
    notes = ["One process: confluent-kafka, orjson or fastavro, plain Python, deltalake; same rules, masks and tables."]
    return Section("yardstick", "Against a hand-written consumer", header, rows, notes)


def many_topics(bench: Bench) -> Section:
    """Measure 50 topics with 12 partitions each through one job."""
    one, many = bench.run(Encoding.JSON), bench.run(Encoding.JSON, MANY_TOPICS, MANY_PARTITIONS)
    rows = [
        (name, f"{run.records:,}", rate_text(run.steady), f"{run.startup_seconds:.1f}",
         f"{run.peaks['together'] / GIB:.2f}", f"{run.steady / one.steady:.0%}")
        for name, run in (("1 x 4", one), (f"{MANY_TOPICS} x {MANY_PARTITIONS}", many))
    ]  # fmt: skip
    header = ("topics x partitions", "records", "records/s, steady", "start-up s", "memory peak GiB", "of one topic")
    return Section("topics", "Many topics through one job", header, rows, ["Wanted: at least 60 %."])


def commit_latency(bench: Bench) -> Section:
    """Measure how long rows take from Kafka to a commit at an even pace."""
    seconds = 20.0 if bench.quick else PACED_SECONDS
    what = bench.empty(Encoding.JSON, "paced")
    found = endtoend.latency(Pipeline(bench.running, bench.home / "latency", what), PACE, seconds)
    shutil.rmtree(bench.home / "latency")
    row = (rate_text(found.rate), f"{found.rows:,}", f"{found.p50:.2f}", f"{found.p99:.2f}", f"{found.most:.2f}")
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


# Name -> (what measures it, whether it needs the shared stack, whether only --long runs it)
BENCHMARKS: Mapping[str, tuple[Callable[[Bench], Section], bool, bool]] = {
    "parts": (shares, False, False),
    "ceiling": (ceilings, True, False),
    "throughput": (throughput, True, False),
    "yardstick": (against_yardstick, True, False),
    "topics": (many_topics, True, False),
    "latency": (commit_latency, True, False),
    "costs": (state_benchmarks.commit_costs, False, False),
    "reads": (state_benchmarks.read_costs, False, False),
    "beside": (state_benchmarks.refining_beside, False, False),
    "state": (state_benchmarks.rates, True, False),
    "aggregates": (aggregate_benchmarks.aggregates, True, False),
    "tables": (state_benchmarks.many_tables_at_once, True, False),
    "isolation": (one_slow_stream, False, False),
    "memory": (memory, True, True),
    "sustained": (state_benchmarks.sustained_pace, True, True),
}

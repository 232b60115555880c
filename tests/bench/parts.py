"""Where the time goes: each part of the hot path alone, in this process, without Flink and Kafka.

The parts are called one after the other as udfs.refine, jobs.refinery and jobs.committer call them.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from contracts.model import Contract, Encoding
from jobs.refinery import _sorted, _topic_runs, _with_event_times
from lakehouse.commit import StreamTables
from lakehouse.lake import Lake
from lakehouse.segments import Range, Section, SectionRef, write_segment
from tests.bench.as_avro import VALUE_SCHEMA
from tests.bench.contract import keys, write_contracts
from tests.bench.generate import Load, raw_batch
from udfs.decode_avro import decode_avro
from udfs.decode_json import decode_json
from udfs.expressions import derive, keep_matching
from udfs.keys import pinned_keys
from udfs.masks import mask
from udfs.normalise import normalise
from udfs.plans import plan_of
from udfs.quarantine import quarantine_rows
from udfs.refine import _others, _rows
from udfs.rules import check

BATCH = 10_000
SCHEMA_ID = 2
NAMES = ("sort", "decode", "normalise", "check", "mask", "quarantine", "assemble", "segment", "commit")


@dataclass
class Stopwatch:
    """CPU and wall seconds by part."""

    wall: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    cpu: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the block (CPU of all threads of the process)."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[name] += time.perf_counter() - wall
        self.cpu[name] += time.process_time() - cpu

    def without(self, whole: str, part: str) -> None:
        """Take a part that was timed twice off the whole."""
        self.wall[whole] -= self.wall[part]
        self.cpu[whole] -= self.cpu[part]


@dataclass(frozen=True)
class Share:
    """What one part costs, in microseconds a record."""

    name: str
    wall: float
    cpu: float


def measure(encoding: Encoding, records: int, batch: int = BATCH, streams: int = 1, partitions: int = 4) -> list[Share]:
    """Give what each part costs for records of one encoding, in batches of a size that mix several streams."""
    topics = [f"bench.customers_{n}" for n in range(streams)]
    what = Load("", topics, partitions, encoding, (1, SCHEMA_ID))
    with tempfile.TemporaryDirectory() as folder:
        named = [(f"customers_{n}", topic) for n, topic in enumerate(topics)]
        registry = "http://127.0.0.1:1" if encoding is Encoding.AVRO else None
        contracts = dict(zip(topics, write_contracts(Path(folder) / "c", named, encoding, registry), strict=True))
        _run(Stopwatch(), what, contracts, Lake.open(f"{folder}/warm"), batch, batch)
        watch = Stopwatch()
        _run(watch, what, contracts, Lake.open(f"{folder}/lake"), records, batch)
    watch.without("normalise", "decode")
    return [Share(n, watch.wall[n] / records * 1e6, watch.cpu[n] / records * 1e6) for n in NAMES]


def _run(watch: Stopwatch, what: Load, contracts: dict[str, Contract], lake: Lake, records: int, batch: int) -> None:
    refs: dict[str, list[SectionRef]] = {topic: [] for topic in contracts}
    last: dict[tuple[str, int], int] = {}
    for first in range(0, records, batch):
        raw = _shuffled(raw_batch(what, batch, first))
        with watch.part("sort"):
            raw = _sorted(raw)
            found = [(topic, raw.slice(start, end - start)) for topic, start, end in _topic_runs(raw)]
        sections = [_section(watch, own, contracts[topic], last) for topic, own in found]
        with watch.part("segment"):
            written = write_segment(lake, f"0-{first}", sections)
        for ref in written:
            refs[ref.ranges[0].topic].append(ref)
    for topic, contract in contracts.items():
        tables = StreamTables(lake, contract, pipeline="bench", pins=pinned_keys(contract, keys()))
        if refs[topic]:
            with watch.part("commit"):
                tables.commit(refs[topic], gaps=lambda *_: False, now_ms=int(time.time() * 1000))


def _section(watch: Stopwatch, raw: pa.Table, contract: Contract, last: dict[tuple[str, int], int]) -> Section:
    now_ms, ring = int(time.time() * 1000), keys()
    with watch.part("decode"):
        _decode(raw, contract)
    with watch.part("normalise"):  # decodes once more: `without` takes it off
        normalised = normalise(raw, contract, _schema, now_ms)
    with watch.part("check"):
        matching, filtered = keep_matching(normalised.changes, contract)
        derived, _ = derive(matching, contract)
        checked = check(derived, contract, now_ms)
    with watch.part("mask"):
        masked = mask(checked.changes, contract, ring)
    with watch.part("quarantine"):
        found = [r for r in (*normalised.rejects, checked.rejects) if r is not None and len(r)]
        rejects = quarantine_rows(raw, found, normalised.readable, contract, ring, now_ms)
    with watch.part("assemble"):
        rows = _rows(masked, contract)
        others = _others(raw, normalised, filtered, checked.dropped)
        ranges = _with_event_times(_ranges(raw, last), raw, rows, now_ms + contract.event_time.max_future_skew_ms)
    return Section(contract.stream, rows, rejects, others, ranges)


def _decode(raw: pa.Table, contract: Contract) -> None:
    values = raw["value"].combine_chunks()
    if contract.encoding is Encoding.AVRO:
        decode_avro(values, np.arange(len(values)), contract, _schema)
    else:
        decode_json(values, np.arange(len(values)), contract, plan_of(contract).shape)


def _schema(schema_id: int) -> str:
    assert schema_id == SCHEMA_ID
    return VALUE_SCHEMA


def _shuffled(raw: pa.Table) -> pa.Table:
    """Give the batch as Flink hands it over: partitions by turns, in runs of some hundred records (one fetch each)."""
    runs = [raw.slice(start, 500) for start in range(0, len(raw), 500)]
    order = sorted(range(len(runs)), key=lambda n: (n % 4, n))
    return pa.concat_tables([runs[n] for n in order]).combine_chunks()


def _ranges(raw: pa.Table, last: dict[tuple[str, int], int]) -> dict[tuple[str, int], Range]:
    grouped = raw.group_by(["topic", "partition"], use_threads=False)
    ranges = {}
    for entry in grouped.aggregate([("offset", "min"), ("offset", "max"), ("offset", "count")]).to_pylist():
        place = (entry["topic"], entry["partition"])
        ranges[place] = Range(*place, last.get(place), entry["offset_min"], entry["offset_max"], entry["offset_count"])
        last[place] = entry["offset_max"]
    return ranges

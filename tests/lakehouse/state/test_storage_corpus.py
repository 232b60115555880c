"""The corpus of real change events gives the same current and history whichever way their tables are written."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, QueryBuilder

from contracts.load import load_contract
from contracts.model import Contract, Storage
from lakehouse.lake import Lake
from lakehouse.segments import Range, Section
from tests import corpus
from tests.lakehouse.rows import NOW, no_gaps, tables, write
from udfs.keys import KeyRing
from udfs.refine import refine

ENCODING = "avro"
FOLDER = Path(__file__).parents[2] / "data" / "contracts" / ENCODING
STREAMS = [c for path in sorted(FOLDER.glob("*.odcs.yaml")) if "current" in (c := load_contract(path)).tables]


def sections(contract: Contract, batches: int) -> list[Section]:
    """Give what refine makes of a stream's records, in so many batches."""
    pattern = contract.topic_pattern or ""
    topics = [t for t in corpus.topics(ENCODING) if t in contract.topics or re.fullmatch(pattern, t)]
    records = pa.concat_tables([corpus.records(ENCODING, topic) for topic in topics]).sort_by(
        [(name, "ascending") for name in ("topic", "partition", "offset")]
    )
    found, prev = [], dict[tuple[str, int], int]()
    number = pc.cast(pc.floor(pc.divide(pc.multiply(records["offset"], batches), 200)), pa.int64()).to_numpy()
    for batch in range(batches):
        own = records.filter(pa.array((number if batch < batches - 1 else number.clip(max=batch)) == batch))
        refined = refine(own, contract, corpus.schema, KeyRing({}), NOW)
        places = own.group_by(["topic", "partition"]).aggregate([("offset", how) for how in ("min", "max", "count")])
        ranges = []
        for r in places.to_pylist():
            at = r["topic"], r["partition"]
            ranges.append(Range(*at, prev.get(at), r["offset_min"], r["offset_max"], r["offset_count"]))
            prev[at] = r["offset_max"]
        parts = refined.rows, refined.rejects, refined.others
        found.append(Section(contract.stream, *parts, tuple(ranges), refined.withheld))
    return [section for section in found if section.ranges]


def read(lake: Lake, table: str, storage: Storage) -> list[str]:
    held = DeltaTable(lake.table_uri(table))
    if storage is Storage.COPY_ON_WRITE:
        rows = held.to_pyarrow_table()  # as a reader does that knows no vectors
    else:
        rows = pa.table(QueryBuilder().register("t", held).execute("SELECT * FROM t").read_all())
    return sorted(str(row) for row in rows.to_pylist())


@pytest.mark.parametrize("contract", STREAMS, ids=lambda c: c.stream)
def test_both_storages_hold_the_same_rows(contract: Contract, tmp_path: Path) -> None:
    told = {}
    for storage in Storage:
        own = dataclasses.replace(contract, state=dataclasses.replace(contract.state, storage=storage))
        lake = Lake.open(str(tmp_path / storage.value))
        for section in sections(own, 3):
            tables(lake, own).commit(write(lake, section), gaps=no_gaps, now_ms=NOW)
        names = [own.stream, f"{own.stream}_history"] if "history" in own.tables else [own.stream]
        told[storage] = [read(lake, name, storage) for name in names]
    assert told[Storage.COPY_ON_WRITE] == told[Storage.MERGE_ON_READ]
    assert any(told[Storage.COPY_ON_WRITE])

"""What a batch says of its partitions: the offsets it covers, its link to the batch before, the highest event time."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.columns import RECORDS
from contracts.load import load_contracts
from jobs.metrics import NoMetrics
from jobs.refinery import Refinery
from jobs.registry import Registries
from lakehouse.added import added_columns, effective
from lakehouse.batches import SectionCache, load
from lakehouse.drift import TABLE, read_drift
from lakehouse.lake import Lake
from lakehouse.parking import Parking
from lakehouse.plan import plan
from lakehouse.segments import read_section
from tests.flows.streams import write_contract
from udfs.keys import KeyRing

BASE_MS = 1_700_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_contract(tmp_path / "contracts", "one", "t.one")
    write_contract(tmp_path / "contracts", "two", "t.two")
    return tmp_path


def made(folder: Path) -> Refinery:
    contracts = load_contracts(folder / "contracts", {})
    lake = Lake.open(str(folder / "lake"))
    return Refinery(contracts, lake, Parking(lake, "p"), Registries(contracts, NoMetrics()), KeyRing({}), NoMetrics())


# One record: its topic, its partition, when Kafka took it, and whether it can be read.
RECORD = st.tuples(st.sampled_from(["t.one", "t.two"]), st.integers(0, 2), st.integers(0, 9_999), st.booleans())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(RECORD, min_size=1, max_size=30), min_size=1, max_size=3), order=st.randoms())
def test_each_partition_has_its_offsets_its_link_and_its_highest_event_time(
    folder: Path, batches: list[list[tuple[str, int, int, bool]]], order: Random
) -> None:
    works = made(folder)
    ends: dict[tuple[str, int], int] = {}
    for batch in batches:
        rows, wanted, before = [], {}, dict(ends)
        for topic, partition, late, sound in batch:
            place = (topic, partition)
            offset = ends[place] = ends.get(place, -1) + 1
            value = json.dumps({"id": offset, "note": "n"}).encode() if sound else b"{"
            rows.append({"topic": topic, "partition": partition, "offset": offset, "value": value})
            rows[-1]["timestamp"] = BASE_MS + late
            first, count, most = wanted.get(place, (offset, 0, None))
            seen = [time for time in (most, BASE_MS + late if sound else None) if time is not None]
            wanted[place] = (first, count + 1, max(seen, default=None))
        order.shuffle(rows)
        refs = works.take(pa.Table.from_pylist(rows, schema=RECORDS))
        found = {(r.topic, r.partition): r for ref in refs for r in ref.ranges}
        assert found.keys() == wanted.keys()
        for place, (first, count, most) in wanted.items():
            r = found[place]
            assert (r.prev, r.first, r.last, r.records) == (before.get(place), first, ends[place], count)
            assert r.max_event_time_ms == most


def batch(*values: dict[str, object], first: int = 0) -> pa.Table:
    """Give records of topic t.one, partition 0."""
    rows = [
        {"topic": "t.one", "partition": 0, "offset": first + n, "timestamp": BASE_MS, "value": json.dumps(v).encode()}
        for n, v in enumerate(values)
    ]
    return pa.Table.from_pylist(rows, schema=RECORDS)


def test_a_new_column_is_noted_once_with_a_record_that_shows_it(folder: Path) -> None:
    works = made(folder)
    works.take(batch({"id": 1, "note": "n"}))
    assert read_drift(works.lake) == []
    for first in (1, 2):
        works.take(batch({"id": 2, "note": "n", "age": 7}, first=first))
    made(folder).take(batch({"id": 2, "note": "n", "age": 7}, first=3))
    (note,) = read_drift(works.lake)
    assert (note["stream"], note["kind"], note["column"]) == ("one", "column_added", "age")
    assert (note["topic"], note["partition"], note["offset"]) == ("t.one", 0, 1)


def test_a_note_that_cannot_be_written_holds_up_no_record(folder: Path) -> None:
    works = made(folder)
    works.lake.put(TABLE, b"a file where the table's folder must be")
    (ref,) = works.take(batch({"id": 2, "note": "n", "age": 7}))
    assert ref.rows == 1


def with_schema(offset: int, **columns: tuple[str, object]) -> dict[str, object]:
    """Give an event as Connect writes it: name -> (type, value), after id and note."""
    whole = {"id": ("int64", offset), "note": ("string", "n"), **columns}
    fields = [{"field": name, "type": kind} for name, (kind, _) in whole.items()]
    payload = {name: value for name, (_, value) in whole.items()}
    return {"schema": {"type": "struct", "fields": fields}, "payload": payload}


def adding(folder: Path, encoding: str) -> Refinery:
    write_contract(folder / "contracts", "one", "t.one", encoding=encoding, unknownFields="add")
    return made(folder)


def test_a_new_column_of_a_known_type_joins_the_rows_of_every_worker(folder: Path) -> None:
    first, second = adding(folder, "json-schema"), adding(folder, "json-schema")
    values = [with_schema(0), with_schema(1, age=("int32", 7)), with_schema(2, age=("string", "old"))]
    sections = [read_section(first.lake, first.take(batch(value, first=n))[0]) for n, value in enumerate(values)]
    assert ["age" in section.rows.column_names for section in sections] == [False, True, True]
    assert sections[1].rows.select(["id", "age", "_extra"]).to_pylist() == [{"id": 1, "age": 7, "_extra": None}]
    assert sections[2].rejects["_rules"].to_pylist() == [["wrong_type:age"]]
    # A worker that meets another type first is bound by what was settled.
    refs = second.take(batch(values[2], values[1], values[0]))
    other = read_section(second.lake, refs[0])
    assert other.rows.schema.field("age").type == pa.int64()
    assert other.rows.select(["id", "age"]).to_pylist() == [{"id": 1, "age": 7}, {"id": 0, "age": None}]
    assert added_columns(first.lake, "one") == {"age": "integer"}
    (contract,) = [c for c in first.contracts if c.stream == "one"]
    assert effective(first.lake, contract).kept[-1].name == "age"


def test_sections_from_before_and_after_a_column_came_become_one_batch(folder: Path) -> None:
    works = adding(folder, "json-schema")
    refs = [works.take(batch(with_schema(0)))[0], works.take(batch(with_schema(1, age=("int32", 7)), first=1))[0]]
    loaded = load(SectionCache(works.lake, refs), plan(refs, {}, lambda *_: False))
    assert loaded.rows.select(["id", "age"]).to_pylist() == [{"id": 0, "age": None}, {"id": 1, "age": 7}]


def test_a_new_column_of_no_known_type_is_kept_as_json(folder: Path) -> None:
    works = adding(folder, "json")
    section = read_section(works.lake, works.take(batch({"id": 1, "note": "n", "age": 7}))[0])
    assert section.rows["_extra"].to_pylist() == ['{"age":7}']
    assert added_columns(works.lake, "one") == {}


@pytest.mark.parametrize("name", ["_op", "a b", "NOTE", ""])
def test_a_name_that_no_table_can_have_is_kept_as_json(folder: Path, name: str) -> None:
    works = adding(folder, "json-schema")
    section = read_section(works.lake, works.take(batch(with_schema(1, **{name: ("int32", 7)})))[0])
    assert section.rows["_extra"].to_pylist() == [json.dumps({name: 7}, separators=(",", ":"))]
    assert added_columns(works.lake, "one") == {}

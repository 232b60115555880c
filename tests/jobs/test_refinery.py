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
from lakehouse.drift import TABLE, read_drift
from lakehouse.lake import Lake
from lakehouse.parking import Parking
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

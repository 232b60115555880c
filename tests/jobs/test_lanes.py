"""Refine deals a stream's records out to its lanes; lanes that a killed job left unlevel are levelled from Kafka before
their number changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pytest

from contracts.columns import RECORDS
from contracts.load import load_contracts
from contracts.model import Contract
from jobs.event_clock import EventClock
from jobs.ingest import lanes as dealt
from jobs.lanes import bring_lanes, finish_lanes, tables_of_lanes
from jobs.metrics import NoMetrics
from jobs.refine_function import line_of
from jobs.refinery import Refinery
from jobs.registry import Registries
from lakehouse.commit import StreamTables
from lakehouse.errors import LanesOver, LanesRefused
from lakehouse.lake import Lake
from lakehouse.lanes import Lane, channel_lane
from lakehouse.parking import Parking
from lakehouse.read import connect
from lakehouse.relaning import change_lanes, levels_of
from lakehouse.segments import SectionRef, read_section
from lakehouse.standing import standing_of
from tests.flows.streams import ID, NOTE, write_contract
from tests.lakehouse.rows import NOW, no_gaps
from udfs.keys import KeyRing

TOPIC = "t.docs"
KEYED = {**ID, "primaryKey": True, "primaryKeyPosition": 1}
TABLES = ["quarantine", "changes", "history", "current"]
PIPELINE = "p"


def contract_of(folder: Path, lanes: int, **state: Any) -> Contract:
    settings = {"envelope": "debezium", "tables": TABLES, "state": {"lanes": lanes, **state}}
    write_contract(folder, "docs", TOPIC, (KEYED, NOTE), **settings)
    (contract,) = load_contracts(folder, {})
    return contract


def change(offset: int, op: str, key: int, note: str | None = None, **headers: int) -> dict[str, Any]:
    """Give a record of topic t.docs, partition 0, whose position is its offset."""
    lsn = 1000 + offset
    source = {"connector": "postgresql", "lsn": lsn, "sequence": json.dumps([str(lsn), str(lsn)]), "ts_ms": NOW}
    row = {"id": key, "note": note}
    value = {"before": row if op == "d" else None, "after": None if op == "d" else row, "op": op, "source": source}
    if op == "t":
        value |= {"after": None}
    told = {name: json.dumps({"id": other}).encode() for name, other in headers.items()}
    return {
        "topic": TOPIC,
        "partition": 0,
        "offset": offset,
        "timestamp": NOW,
        "key": None if op == "t" else json.dumps({"id": key}).encode(),
        "value": json.dumps(value).encode(),
        **told,
    }


UNCHANGED = "__debezium_unavailable_value"


class Kafka:
    """A topic of one partition, as far as levelling asks for it."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.records = records
        self.given = 0

    @contextmanager
    def consumer(self, **_: Any) -> Iterator[Any]:
        yield self

    def assign(self, _places: Any) -> None:
        self._at = 0

    def beginning_offsets(self, places: Any) -> dict[Any, int]:
        return dict.fromkeys(places, 0)

    def seek(self, place: Any, offset: int) -> None:
        self._place, self._at = place, offset

    def position(self, _place: Any) -> int:
        return self._at

    def poll(self, **_: Any) -> dict[Any, list[Any]]:
        some = self.records[self._at : self._at + 7]
        self._at += len(some)
        self.given += len(some)
        names = {"old_key": "__debezium.oldkey", "new_key": "__debezium.newkey"}
        return {
            self._place: [
                SimpleNamespace(**{**r, "headers": [(h, r[n]) for n, h in names.items() if n in r]}) for r in some
            ]
        }


class Works:
    """A refinery, and the sections that it made for each lane."""

    def __init__(self, contract: Contract, lake: Lake) -> None:
        registries = Registries([contract], NoMetrics())
        self.lake, self.contract = lake, contract
        self.refinery = Refinery([contract], lake, Parking(lake, PIPELINE), registries, KeyRing({}), NoMetrics())

    def take(self, records: list[dict[str, Any]]) -> dict[Lane, list[SectionRef]]:
        refs = self.refinery.take(pa.Table.from_pylist(records, schema=RECORDS))
        assert [SectionRef.from_text(ref.to_text()) for ref in refs] == refs
        return {ref.lane: [ref] for ref in refs}

    def commit(self, refs: dict[Lane, list[SectionRef]], *numbers: int) -> None:
        """Let some of the lanes commit."""
        for lane, stream in self.streams().items():
            if lane.number in numbers:
                stream.commit(refs[lane], gaps=no_gaps, now_ms=NOW)

    def streams(self) -> dict[Lane, StreamTables]:
        return tables_of_lanes(self.contract, self.lake, PIPELINE, KeyRing({}), {})

    def die(self, *refs: dict[Lane, list[SectionRef]]) -> None:
        """Let the first lane die before it commits to the last of its tables."""
        lane, stream = next(iter(self.streams().items()))
        stream.prepare()
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(stream.anchor, "apply", Mock(side_effect=KeyboardInterrupt))
            stream.commit([ref for own in refs for ref in own[lane]], gaps=no_gaps, now_ms=NOW)


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka says nothing of topics' ids and ends."""
    monkeypatch.setattr("jobs.lanes.IdentityWatch", lambda _: SimpleNamespace(of=lambda _, pattern: None))


def current(lake: Lake) -> list[tuple[int, str | None]]:
    return connect(lake).execute("SELECT id, note FROM docs WHERE _pending IS NULL ORDER BY id").fetchall()


def test_each_lane_gets_the_changes_of_its_keys_and_all_the_same_ranges(tmp_path: Path) -> None:
    contract, lake = contract_of(tmp_path / "c", 3, truncate="apply"), Lake.open(str(tmp_path / "lake"))
    records = [change(n, "c", n, "x") for n in range(40)]
    records += [{**change(40, "c", 40), "value": b"{"}, {**change(41, "c", 41), "value": None}, change(42, "t", 0)]
    refs = Works(contract, lake).take(records)
    assert list(refs) == [Lane(0, 3), Lane(1, 3), Lane(2, 3)]
    sections = [read_section(lake, ref) for (ref,) in refs.values()]
    assert len({section.ranges for section in sections}) == 1
    found = [section.rows["id"].drop_null().to_pylist() for section in sections]
    assert sorted(chain.from_iterable(found)) == list(range(40)) and all(len(own) > 4 for own in found)
    assert [(len(s.rejects), len(s.others)) for s in sections] == [(1, 1), (0, 0), (0, 0)]
    assert [s.rows["_op"].to_pylist().count("t") for s in sections] == [1, 0, 0]
    told = [s.withheld["_kind"].to_pylist() if len(s.withheld) else [] for s in sections]
    assert told[1:] == [["truncated", "keyless"]] * 2
    lines = [line_of(ref, EventClock(1_000)).split("\t") for (ref,) in refs.values()]
    assert [channel_lane(name) for name, _, _ in lines] == [("docs", Lane(n, 3)) for n in range(3)]


def test_the_lanes_of_a_stream_are_dealt_out_like_streams(tmp_path: Path) -> None:
    contract = contract_of(tmp_path / "c", 3)
    assert [[c.name for c in own] for own in dealt([contract], 2)] == [["docs#0of3", "docs#2of3"], ["docs#1of3"]]


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2), (2, 1)])
def test_lanes_that_are_not_level_are_levelled_from_kafka_before_their_number_changes(
    before: int, after: int, tmp_path: Path, identity: None
) -> None:
    lake = Lake.open(str(tmp_path / "lake"))
    records = [change(n, "c" if n < 20 else "u", n % 20, f"note {n}") for n in range(60)]
    old = contract_of(tmp_path / "old", before)
    works = Works(old, lake)
    works.commit(works.take(records[:25]), *range(before))
    more, last = works.take(records[25:45]), works.take(records[45:50])
    works.commit(more, before - 1)
    works.die(more, last)
    new = contract_of(tmp_path / "new", after)
    with pytest.raises(LanesRefused, match="not level"):
        change_lanes(lake, new, PIPELINE)
    kafka, said = Kafka(records), list[str]()
    bring_lanes([new], lake, PIPELINE, kafka, KeyRing({}), said.append)  # type: ignore[arg-type]
    assert len(said) == 2 and levels_of(lake, new, PIPELINE) is None
    assert standing_of(lake, new, PIPELINE).progress == {(TOPIC, 0): 49}
    given = kafka.given
    bring_lanes([new], lake, PIPELINE, kafka, KeyRing({}), said.append)  # type: ignore[arg-type]
    assert (len(said), kafka.given) == (2, given)
    late = Works(old, lake)
    with pytest.raises(LanesOver):
        late.commit(late.take(records[50:]), *range(before))
    works = Works(new, lake)
    works.commit(works.take(records[40:]), *range(after))
    assert current(lake) == [(key, f"note {40 + key}") for key in range(20)]
    (count,) = connect(lake).execute("SELECT count(*) FROM docs_changes").fetchone() or (0,)
    assert count == len(records)


def test_a_value_follows_its_row_over_key_changes_between_lanes(tmp_path: Path) -> None:
    contract, lake = contract_of(tmp_path / "c", 3), Lake.open(str(tmp_path / "lake"))
    records = [change(0, "c", 0, "large")]
    for n in range(6):
        records += [
            change(1 + 2 * n, "d", n, new_key=n + 1),
            {**change(1 + 2 * n, "c", n + 1, UNCHANGED, old_key=n), "offset": 2 + 2 * n},
        ]
    works = Works(contract, lake)
    refs = works.take(records)
    for number in (2, 1, 0):
        works.commit(refs, number)
    finish_lanes(contract, lake, PIPELINE, KeyRing({}))
    assert current(lake) == [(6, "large")]
    history = connect(lake).execute("SELECT id, note, _pending FROM docs_history ORDER BY id").fetchall()
    assert history == [(n, "large", None) for n in range(7)]

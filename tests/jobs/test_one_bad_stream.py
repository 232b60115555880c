"""A fault in one stream parks that stream, without a value in its reason; a store that is away is waited for."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from contracts.columns import RECORDS
from contracts.load import load_contracts
from contracts.model import Contract
from jobs import refinery
from jobs.committer import Committer
from jobs.kafka.client import KafkaClient
from jobs.metrics import NoMetrics
from jobs.patience import Patience
from jobs.pausing import resume_stream
from jobs.refinery import Refinery
from jobs.registry import Registries
from jobs.settings import IngestSettings
from jobs.status import read_status
from lakehouse.errors import DiskFull, LakeUnavailable
from lakehouse.identity import TopicIdentity
from lakehouse.lake import Lake
from lakehouse.lanes import channel
from lakehouse.parking import Parking
from lakehouse.read import connect
from lakehouse.standing import standing_of
from tests.flows.streams import NOTE, write_contract
from tests.jobs.test_lanes import KEYED, PIPELINE, TABLES, change
from udfs.keys import KeyRing

SECRET = "4111-1111-1111-1111"


def records(*topics: str) -> pa.Table:
    """Give one record of each topic."""
    rows = [
        {"topic": topic, "partition": 0, "offset": 7, "timestamp": 0, "value": b'{"id": 1, "note": "n"}'}
        for topic in topics
    ]
    return pa.Table.from_pylist(rows, schema=RECORDS)


@pytest.fixture
def works(tmp_path: Path) -> Refinery:
    for stream in ("good", "bad"):
        write_contract(tmp_path / "contracts", stream, f"t.{stream}")
    contracts = load_contracts(tmp_path / "contracts")
    lake = Lake.open(str(tmp_path / "lake"))
    patience = Patience(seconds=60.0, sleep=lambda _: None)
    registries = Registries(contracts, NoMetrics())
    return Refinery(contracts, lake, Parking(lake, "p"), registries, KeyRing({}), NoMetrics(), patience)


def test_a_fault_in_one_streams_records_parks_it_by_type_and_place(
    works: Refinery, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []
    refine = refinery.refine

    def faulty(table: pa.Table, contract: Contract, *more: Any) -> Any:
        if contract.stream == "bad":
            tries.append(1)
            raise TypeError(f"cannot read {SECRET}")
        return refine(table, contract, *more)

    monkeypatch.setattr(refinery, "refine", faulty)
    assert [ref.stream for ref in works.take(records("t.bad", "t.good"))] == ["good"]
    parked = works.parking.read("bad")
    assert parked is not None
    assert len(tries) == 3
    assert "topic t.bad partition 0 offsets 7 to 7 fails with TypeError at" in parked.reason
    assert "`tidegate resume`" in parked.reason
    assert SECRET not in parked.reason


def test_a_fault_that_passes_parks_nothing(works: Refinery, monkeypatch: pytest.MonkeyPatch) -> None:
    refine, tries = refinery.refine, []

    def once(*arguments: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("interrupted")
        return refine(*arguments)

    monkeypatch.setattr(refinery, "refine", once)
    assert [ref.stream for ref in works.take(records("t.good"))] == ["good"]
    assert not works.parking.all()


def test_a_store_that_is_away_is_waited_for(works: Refinery, monkeypatch: pytest.MonkeyPatch) -> None:
    write, answers = refinery.write_segment, [LakeUnavailable("away"), LakeUnavailable("away")]

    def away(*arguments: Any) -> Any:
        if answers:
            raise answers.pop()
        return write(*arguments)

    monkeypatch.setattr(refinery, "write_segment", away)
    assert [ref.stream for ref in works.take(records("t.good"))] == ["good"]


def test_a_full_disk_fails_at_once(works: Refinery, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise DiskFull("no space")

    monkeypatch.setattr(refinery, "write_segment", full)
    with pytest.raises(DiskFull):
        works.take(records("t.good"))
    assert not works.parking.all()


class Job:
    """What the job does with records, from a start on: refine them, and commit every section."""

    def __init__(self, folder: Path) -> None:
        self.contracts = load_contracts(folder / "contracts", {})
        self.lake = Lake.open(str(folder / "lake"))
        parking, registries, keys = Parking(self.lake, PIPELINE), Registries(self.contracts, NoMetrics()), KeyRing({})
        settings = IngestSettings(PIPELINE, str(folder / "contracts"), "nowhere:1", self.lake.uri, "group")
        self._refinery = Refinery(self.contracts, self.lake, parking, registries, keys, NoMetrics())
        by_name = {contract.stream: contract for contract in self.contracts}
        kafka = KafkaClient.from_file(None, "nowhere:1")
        self._committer = Committer(settings, by_name, self.lake, keys, kafka, NoMetrics())

    def work(self, *raw: dict[str, Any]) -> None:
        sections = defaultdict(list)
        for ref in self._refinery.take(pa.Table.from_pylist(list(raw), schema=RECORDS)):
            sections[channel(ref.stream, ref.lane)].append(ref.to_text())
        self._committer.commit(sections)

    def progress(self, stream: str) -> int:
        (contract,) = [contract for contract in self.contracts if contract.stream == stream]
        return standing_of(self.lake, contract, PIPELINE).progress[f"t.{stream}", 0]

    def keys(self, table: str, where: str = "true") -> list[int]:
        """Give the keys in rows of a table."""
        found = connect(self.lake).execute(f"SELECT id FROM {table} WHERE {where} ORDER BY id").fetchall()
        return [key for (key,) in found]

    def parked(self) -> dict[str, str]:
        return {entry.stream: entry.reason for entry in Parking(self.lake, PIPELINE).all()}


def write_keyed(folder: Path, stream: str, **state: Any) -> None:
    """Write the contract of a stream that keeps the state of a captured table."""
    settings = {"envelope": "debezium", "tables": TABLES, **({"state": state} if state else {})}
    write_contract(folder / "contracts", stream, f"t.{stream}", (KEYED, NOTE), **settings)


def changes(offset: int, op: str, key: int, *streams: str) -> list[dict[str, Any]]:
    """Give the same change in the topics of some streams."""
    return [{**change(offset, op, key, "n"), "topic": f"t.{stream}"} for stream in streams]


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize(("policy", "left"), [("apply", [3]), ("ignore", [1, 2, 3])])
def test_a_truncate_that_the_contract_says_nothing_of_parks_its_stream_until_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, left: list[int], lanes: int
) -> None:
    monkeypatch.setattr(
        "jobs.committer.IdentityWatch", lambda *_: SimpleNamespace(of=lambda *_, **__: TopicIdentity(taken_at=0.0))
    )
    write_keyed(tmp_path, "good")
    write_keyed(tmp_path, "bad", **({"lanes": lanes} if lanes > 1 else {}))
    job = Job(tmp_path)
    job.work(*changes(0, "c", 1, "good", "bad"), *changes(1, "c", 2, "good", "bad"))
    truncated = [*changes(2, "t", 0, "bad"), *changes(3, "c", 3, "bad")]
    job.work(*truncated, *changes(2, "c", 3, "good"))
    job.work(*changes(4, "c", 4, "bad"), *changes(3, "c", 4, "good"))

    assert (job.progress("good"), job.keys("good")) == (3, [1, 2, 3, 4])
    assert (job.progress("bad"), job.keys("bad")) == (1, [1, 2])
    asked = {"kafka": None, "cluster": None, "kafka_config": None}
    told = {one.stream: one for one in read_status(tmp_path / "contracts", job.lake.uri, PIPELINE, **asked).streams}
    assert told["bad"].state == "parked"
    assert "the record at t.bad/0 offset 2 says that the source was truncated" in told["bad"].reason
    assert all(said in told["bad"].reason for said in ("`truncate: apply`", "`truncate: ignore`", "`tidegate resume`"))
    assert list(job.parked()) == ["bad"]

    write_keyed(tmp_path, "bad", truncate=policy, lanes=lanes)
    resume_stream(job.lake.uri, PIPELINE, "bad", None)
    job = Job(tmp_path)
    job.work(*truncated)
    assert (job.progress("bad"), job.keys("bad"), job.parked()) == (3, left, {})
    assert (job.keys("bad_history"), job.keys("bad_history", "_is_current")) == ([1, 2, 3], left)

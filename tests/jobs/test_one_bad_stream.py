"""A fault in one stream parks that stream, without a value in its reason; a store that is away is waited for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from contracts.columns import RECORDS
from contracts.model import Contract
from jobs import refinery
from jobs.metrics import NoMetrics
from jobs.patience import Patience
from jobs.refinery import Refinery
from jobs.registry import Registries
from lakehouse.errors import DiskFull, LakeUnavailable
from lakehouse.lake import Lake
from lakehouse.parking import Parking
from tests.flows.streams import write_contract
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
    from contracts.load import load_contracts

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

"""A parked stream stands still for every process until it is let go."""

from __future__ import annotations

import pytest

from lakehouse import parking
from lakehouse.lake import Lake
from lakehouse.parking import Parking


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "CACHE_SECONDS", 0.0)


def test_a_parked_stream_is_seen_by_others_of_its_pipeline_only(lake: Lake) -> None:
    mine, theirs, others = (Parking(lake, name) for name in ("demo", "demo", "other"))
    assert not theirs.is_parked("orders") and theirs.all() == []
    mine.park("orders", "the disk burns")
    assert theirs.is_parked("orders") and not theirs.is_parked("order") and not others.is_parked("orders")
    assert [(p.stream, p.reason) for p in theirs.all()] == [("orders", "the disk burns")]


def test_the_first_reason_stays(lake: Lake) -> None:
    mine = Parking(lake, "demo")
    first = mine.park("orders", "first")
    assert mine.park("orders", "second") == first == mine.read("orders")


def test_an_unparked_stream_is_free(lake: Lake) -> None:
    mine = Parking(lake, "demo")
    mine.park("orders")
    assert mine.unpark("orders") and not mine.unpark("orders")
    assert not mine.is_parked("orders") and mine.read("orders") is None

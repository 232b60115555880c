"""A canary's way: stages in order, what readers see, and one sentence that says where it stuck."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from kafka.errors import KafkaTimeoutError

from jobs import canary
from jobs.canary import STAGES, Asked, Flight, Tracker, fly
from jobs.errors import TidegateError, UnknownStream
from lakehouse.lake import Lake
from lakehouse.parking import Parking
from lakehouse.segments import write_segment
from tests.flows.streams import write_contract
from tests.lakehouse.rows import CONTRACT, NOW, TOPIC, no_gaps, other, row, section, tables
from udfs.kinds import CANARY_KEY


@dataclass
class Broker:
    """Kafka as far as a canary goes: it takes records, or not."""

    names: list[str]
    acknowledges: bool = True
    sent: list[dict[str, Any]] = field(default_factory=list)

    def topics(self) -> list[str]:
        return self.names

    @contextmanager
    def producer(self, **settings: Any) -> Iterator[Broker]:
        assert settings["acks"] == "all"
        yield self

    def partitions_for(self, topic: str) -> set[int]:
        return {0}

    def send(self, topic: str, **record: Any) -> Broker:
        self.sent.append({"topic": topic, **record})
        return self

    def get(self, timeout: float) -> Broker:
        if not self.acknowledges:
            raise KafkaTimeoutError()
        return self

    offset = 7


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open(str(tmp_path / "lake"))


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    made = Broker(["a.one", "a.two"])
    monkeypatch.setattr(canary.KafkaClient, "from_file", lambda path, bootstrap: made)
    return made


@pytest.fixture
def asked(tmp_path: Path, lake: Lake) -> Asked:
    folder = write_contract(tmp_path / "contracts", "one", "a.one")
    write_contract(tmp_path / "contracts", "same", "a.one")
    write_contract(tmp_path / "contracts", "two", "a.two")
    return Asked(folder, "127.0.0.1:1", lake.uri, "test", timeout_seconds=0.1)


def said(flights: list[Flight]) -> dict[str, str]:
    return {flight.stream: flight.failure for flight in flights}


def test_nothing_is_sent_before_the_user_agrees(asked: Asked, broker: Broker) -> None:
    told: list[str] = []
    with pytest.raises(TidegateError, match="nothing was sent: it needs a yes"):
        fly(asked, lambda statement: bool(told.append(statement)))
    assert "a.one, a.two" in told[0] and "every other consumer" in told[0]
    assert broker.sent == []


def test_streams_of_one_topic_share_its_record_which_is_marked(asked: Asked, broker: Broker) -> None:
    flights = fly(asked, lambda _: True)
    assert [record["topic"] for record in broker.sent] == ["a.one", "a.two"]
    for record in broker.sent:
        assert record["value"] is None and record["partition"] == 0
        assert record["key"].startswith(CANARY_KEY) and yaml.safe_load(record["key"])["tidegate_canary"]
    assert {flight.offset for flight in flights} == {7}
    assert all("not refined within 0 s" in failure for failure in said(flights).values())
    assert all("the job does not run, start it with `tidegate run`" in failure for failure in said(flights).values())


def test_a_record_that_kafka_does_not_acknowledge_is_said(asked: Asked, broker: Broker) -> None:
    broker.acknowledges = False
    flights = fly(asked, lambda _: True)
    assert all("Kafka did not acknowledge the record" in failure for failure in said(flights).values())
    assert {tuple(flight.seconds) for flight in flights} == {("produced",)}


def test_a_parked_stream_gets_no_canary(asked: Asked, broker: Broker, lake: Lake) -> None:
    Parking(lake, "test").park("two", "paused by hand")
    flights = fly(asked, lambda statement: "a.two" not in statement)
    assert said(flights)["two"] == "two is parked, nothing was sent: paused by hand"
    assert [record["topic"] for record in broker.sent] == ["a.one"]


def test_unknown_streams_and_missing_topics_are_said(asked: Asked, broker: Broker) -> None:
    with pytest.raises(UnknownStream, match="known are one, same, two"):
        fly(Asked(asked.contracts, asked.kafka, asked.lake, "test", streams=("ones",)), lambda _: True)
    broker.names = ["a.two"]
    found = said(fly(asked, lambda _: True))
    assert found["one"] == "one: none of its topics exists; create one, or correct the contract"
    assert "(topic a.two partition 0 offset 7)" in found["two"], "the others' are sent all the same"


def test_stages_are_seen_one_by_one_as_segment_and_commit_come(lake: Lake, asked: Asked) -> None:
    before = write_segment(lake, f"{int(time.time() * 1000)}-before", [section([row(0)])])
    own = tables(lake)
    own.commit(before, gaps=no_gaps, now_ms=NOW)
    flight = Flight(CONTRACT.stream, TOPIC)
    tracker = Tracker(lake, asked, CONTRACT, flight)
    now = time.monotonic()
    tracker.sent(now - 2, now - 1, now - 1.5, 3)
    tracker.look()
    assert list(flight.seconds) == ["produced", "acknowledged"] and flight.stage == "refined"
    canaries = section(others=[other(3, kind="canary")], prev={(TOPIC, 0): 0})
    after = write_segment(lake, f"{int(time.time() * 1000)}-after", [canaries])
    tracker.look()
    assert flight.stage == "committed" and not flight.over
    own.commit(after, gaps=no_gaps, now_ms=NOW)
    tracker.look()
    assert flight.over and list(flight.seconds) == list(STAGES)
    assert flight.seconds["produced"] == 0.5 and flight.seconds["acknowledged"] == 1.0
    assert list(flight.seconds.values()) == sorted(flight.seconds.values())


def test_a_canary_at_the_very_first_offset_is_seen(lake: Lake, asked: Asked) -> None:
    flight = Flight(CONTRACT.stream, TOPIC)
    tracker = Tracker(lake, asked, CONTRACT, flight)
    tracker.sent(0, 0, 0, 0)
    tracker.look()
    assert flight.stage == "refined"
    refs = write_segment(lake, f"{int(time.time() * 1000)}-first", [section(others=[other(0, kind="canary")])])
    tables(lake).commit(refs, gaps=no_gaps, now_ms=NOW)
    tracker.look()
    assert flight.over

"""Freshness on a real cluster: green while all is well, red when records wait, and a canary that goes the whole way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from deltalake import DeltaTable

from jobs.kafka.client import KafkaClient
from jobs.kafka.topics import ensure_topics
from jobs.pausing import pause_stream
from jobs.status import read_status
from lakehouse.freshness import Cause, Colour, Health
from lakehouse.lake import Lake
from lakehouse.parking import Parking
from lakehouse.sla_table import TABLE
from tests.flows.command import Said, tidegate
from tests.flows.pipeline import Pipeline
from tests.flows.streams import events, ids, produce, running, until, write_contract

pytestmark = pytest.mark.integration

STREAM, LATENCY_SECONDS = "fresh", 4


def promising(folder: Path, topic: str) -> Path:
    """Write a contract that promises a latency of a few seconds and a freshness of an hour."""
    contracts = write_contract(folder / "contracts", STREAM, topic)
    path = contracts / f"{STREAM}.odcs.yaml"
    contract = yaml.safe_load(path.read_text("utf-8"))
    contract["slaProperties"] = [
        {"property": "latency", "value": LATENCY_SECONDS, "unit": "s"},
        {"property": "freshness", "value": 1, "unit": "h"},
    ]
    path.write_text(yaml.safe_dump(contract, sort_keys=False), "utf-8")
    return contracts


class Asked:
    """The command line, about one pipeline."""

    def __init__(self, pipeline: Pipeline, contracts: Path) -> None:
        self._given = ["--contracts", str(contracts), "--lake", str(pipeline.lake), "--name", pipeline.name,
                       "--kafka", pipeline.stack.kafka_address]  # fmt: skip
        self._pipeline = pipeline
        self._contracts = contracts

    def command(self, *words: str) -> Said:
        return tidegate(*words, *self._given)

    def health(self) -> tuple[bool, Health]:
        """Give whether status says that all is well, and the stream's health."""
        kafka, lake = self._pipeline.stack.kafka_address, str(self._pipeline.lake)
        status = read_status(self._contracts, lake, self._pipeline.name, kafka=kafka, cluster=None, kafka_config=None)
        (stream,) = status.streams
        assert stream.health is not None
        return status.healthy, stream.health

    def judged(self) -> list[dict[str, Any]]:
        """Give the rows of _tidegate/sla; none before there are any."""
        table = Path(self._pipeline.lake) / TABLE
        if not (table / "_delta_log").exists():
            return []
        rows: list[dict[str, Any]] = DeltaTable(table).to_pyarrow_table().sort_by("evaluated_at").to_pylist()
        return rows


def test_a_stream_is_green_then_red_when_records_wait_and_a_canary_goes_the_whole_way(
    pipeline: Pipeline, kafka: KafkaClient, tmp_path: Path
) -> None:
    topic = f"freshness.{pipeline.name[:20]}"
    ensure_topics(kafka, {topic: 1})
    contracts = promising(tmp_path, topic)
    asked = Asked(pipeline, contracts)
    produce(kafka, topic, events(1, 50))
    with running(pipeline, contracts, freshness_seconds=3.0):
        until("the rows are there", lambda: len(ids(pipeline, STREAM)) == 50)
        # The first rows had waited for the job to start, and are late for as long as they are news.
        until("a green row", lambda: [row for row in asked.judged() if row["colour"] == "green"])
        well, health = asked.health()
        assert (well, health.colour, health.measures.waiting) == (True, Colour.GREEN, 0), health

        flown = asked.command("canary", "--yes", "--json", "--timeout", "30")
        assert flown.code == 0, flown.words
        assert "every other consumer of the topic gets it" in flown.words
        (flight,) = json.loads(flown.out)
        seconds = list(flight["seconds"].values())
        assert list(flight["seconds"]) == ["produced", "acknowledged", "refined", "committed", "visible"]
        assert seconds == sorted(seconds) and flight["offset"] == 50
        assert pipeline.counts(contracts)[STREAM]["kind.canary"] == 1
        assert ids(pipeline, STREAM) == list(range(1, 51)), "no table has a row of it"

        pause_stream(str(pipeline.lake), pipeline.name, STREAM, "paused by hand")
        produce(kafka, topic, events(51, 53))
        parked = lambda row: row["cause"] == "parked" and row["violated"] == ["latency"]  # noqa: E731
        red = until("a red row", lambda: list(filter(parked, asked.judged())))[0]
        assert (red["colour"], red["reason"]) == ("red", "it stands still: paused by hand")
        assert (red["by"], red["waiting_records"]) == ("job", 3)
        assert red["oldest_waiting_ms"] > LATENCY_SECONDS * 1000
    Parking(Lake.open(str(pipeline.lake)), pipeline.name).unpark(STREAM)

    well, health = asked.health()
    assert (well, health.colour, health.cause) == (False, Colour.RED, Cause.JOB_DOWN)
    assert health.reason.startswith("the job does not run: 3 records wait, the oldest for ")
    lost = asked.command("canary", "--yes", "--timeout", "2")
    assert lost.code == 1
    assert "not refined within 2 s: the record is in Kafka, but no segment holds it" in lost.words
    assert "the job does not run" in lost.words

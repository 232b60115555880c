"""Metrics: what docs/operations.md lists is in the dashboard and at the Prometheus endpoint, with the true numbers."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.kafka.client import KafkaClient
from jobs.kafka.topics import ensure_topics
from jobs.stack import Stack
from tests.flows.pipeline import Pipeline
from tests.flows.streams import ID, NOTE, Column, metrics, offsets, produce, running, until, write_contract

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).parents[2]
STREAM, TOPIC, BEATS = "measured", "metrics.measured", "__debezium-heartbeat.metrics"
COLUMNS: list[Column] = [
    ID,
    {**NOTE, "logicalTypeOptions": {"maxLength": 20}},
    {"name": "amount", "logicalType": "integer", "physicalType": "bigint", "logicalTypeOptions": {"minimum": 0}},
    {"name": "at", "logicalType": "timestamp", "physicalType": "timestamptz"},
]
LATEST = int(time.time() * 1000) - 60_000  # event time of the newest good row, ms
DISORDER, BEHIND = 10_000, 3_600_000  # ms: how far a row may be behind, and how far the late one is
POISON = b'{"before": null, "after": {"id": nothing}, "op": "c"}'  # whole to look at: only reading it tells
# They tell of trouble that this job does not meet.
TROUBLE = {
    "drift_noted", "drift_not_recorded", "registry_retries", "registry_unavailable", "store_retries", "streams_parked",
}  # fmt: skip

Seen = dict[tuple[str, frozenset[tuple[str, str]]], float]  # (name, labels) -> value, subtasks added up


@dataclass(frozen=True)
class Shown:
    """What both places show once all is committed, and the bytes of all segments."""

    dashboard: Seen
    prometheus: Seen
    segments: int


@pytest.fixture(scope="module")
def shown(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """One run over good rows, a poison record, a broken rule or two, a heartbeat, a tombstone and a late row."""
    kafka = KafkaClient.from_file(None, stack.kafka_address)
    folder = tmp_path_factory.mktemp("metrics")
    ensure_topics(kafka, {TOPIC: 1, BEATS: 1})
    event_time = {"field": "at", "outOfOrderness": f"{DISORDER} ms"}
    settings: dict[str, Any] = {"envelope": "debezium", "topics": [TOPIC, BEATS], "eventTime": event_time}
    contracts = write_contract(folder / "contracts", STREAM, TOPIC, COLUMNS, **settings)
    pipeline = Pipeline(stack, folder / "lake", "metrics")
    produce(kafka, BEATS, [{"ts_ms": LATEST}])
    good = [_change(n, LATEST - 1000 * (6 - n)) for n in range(1, 7)]
    produce(kafka, TOPIC, [*good, POISON, _change(7, LATEST, amount=-1, note="x" * 21), None])
    with running(pipeline, contracts, freshness_seconds=1.0) as (launch, job_id):
        until("the first rows are there", lambda: len(offsets(pipeline, STREAM)) == 8)
        produce(kafka, TOPIC, [_change(8, LATEST - BEHIND)])
        until("the late row is there", lambda: len(offsets(pipeline, STREAM)) == 9)
        endpoint = f"http://127.0.0.1:{stack.place('flink').ports['taskmanager']}/metrics"
        own = frozenset({("stream", STREAM)})

        def settled(seen: Seen) -> bool:
            judged = all((name, own) in seen for name in ("sla_event_lag_ms", "sla_watermark_lag_ms"))
            return bool(seen.get(("records_late", own))) and judged and seen.get(("sla_waiting_records", own)) == 0

        def dashboard() -> Seen:
            # Flink fetches when asked: operators asked before the one that has the news may be a fetch behind.
            asked = [_of_dashboard(metrics(launch.cluster, job_id)) for _ in range(2)]
            return asked[1] if settled(asked[0]) else {}

        def prometheus() -> Seen:
            answer = httpx.get(endpoint, trust_env=False, timeout=10)
            found = _of_prometheus(answer.text, job_id)
            return found if settled(found) else {}

        segments = sum(path.stat().st_size for path in (folder / "lake" / "_tidegate" / "segments").iterdir())
        yield Shown(until("the dashboard", dashboard), until("the endpoint", prometheus), segments)


def _change(number: int, at_ms: int, amount: int = 1, note: str = "note") -> dict[str, Any]:
    row = {"id": number, "note": note, "amount": amount, "at": datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()}
    return {"before": None, "after": row, "source": {"ts_ms": at_ms, "lsn": number}, "op": "c", "ts_ms": at_ms}


def _of_dashboard(found: dict[str, str]) -> Seen:
    """Read <task>.<subtask>.<operator>.tidegate.<label>.<value>...<name>."""
    seen: Seen = {}
    for shown_as, value in found.items():
        *pairs, name = shown_as.partition(".tidegate.")[2].split(".")
        key = (name, frozenset(zip(pairs[::2], pairs[1::2], strict=True)))
        seen[key] = seen.get(key, 0) + float(value)
    return seen


def _of_prometheus(text: str, job_id: str) -> Seen:
    """Read the lines of our metrics of one job; the labels are those that Flink itself does not give."""
    seen: Seen = {}
    for line in text.splitlines():
        matched = re.match(r"flink_taskmanager_job_task_operator_tidegate_(\w+)\{(.*)\} (\S+)$", line)
        labels = dict(re.findall(r'(\w+)="([^"]*)"', matched[2])) if matched else {}
        if matched and labels["job_id"] == job_id:
            own = {label: labels[label] for label in ("stream", "kind", "rejected", "registry") if label in labels}
            name = matched[1].removeprefix("".join(f"{label}_" for label in own))
            key = (name, frozenset(own.items()))
            seen[key] = seen.get(key, 0) + float(matched[3])
    return seen


@pytest.fixture(params=["dashboard", "prometheus"])
def seen(shown: Shown, request: pytest.FixtureRequest) -> Seen:
    """What one of the places shows."""
    found: Seen = getattr(shown, request.param)
    return found


def value(seen: Seen, name: str, **labels: str) -> float:
    return seen[name, frozenset({"stream": STREAM, **labels}.items())]


def test_records_are_counted_by_what_became_of_them(seen: Seen) -> None:
    assert value(seen, "records_in") == 11
    assert value(seen, "records_applied") == 7
    assert value(seen, "records_quarantined") == 2
    assert value(seen, "records_late") == 1


def test_rejected_records_are_counted_by_rule_and_others_by_kind(seen: Seen) -> None:
    assert {labels - {("stream", STREAM)}: n for (name, labels), n in seen.items() if name == "records_rejected"} == {
        frozenset({("rejected", rule)}): 1 for rule in ("undecodable", "amount_minimum", "note_length")
    }
    assert {labels - {("stream", STREAM)}: n for (name, labels), n in seen.items() if name == "records_kind"} == {
        frozenset({("kind", kind)}): 1 for kind in ("heartbeat", "tombstone")
    }
    assert value(seen, "decode_fallbacks") >= 1


def test_commits_are_measured(seen: Seen) -> None:
    assert value(seen, "commits") >= 2
    assert value(seen, "commit_rows") == 9
    assert value(seen, "commit_retries") == 0
    assert seen["segments_deleted", frozenset()] == seen["housekeeping_failures", frozenset()] == 0
    assert 0 < value(seen, "commit_duration_ms") < 60_000


def test_the_bytes_of_segments_are_those_of_the_objects_but_for_their_trailers(seen: Seen, shown: Shown) -> None:
    assert 0.5 * shown.segments < seen["segment_bytes", frozenset()] < shown.segments


def test_watermark_and_latencies_are_those_of_the_last_commit(seen: Seen) -> None:
    assert value(seen, "watermark_ms") == LATEST - DISORDER
    assert 0 <= value(seen, "latency_ingest_ms") < 60_000
    since = time.time() * 1000 - (LATEST - BEHIND)  # the last commit held the late row only
    assert since - 300_000 < value(seen, "latency_event_ms") < since


def test_freshness_is_that_of_the_tables(seen: Seen) -> None:
    assert value(seen, "sla_colour") == value(seen, "sla_violated") == value(seen, "sla_waiting_records") == 0
    since = time.time() * 1000 - LATEST
    assert since - 300_000 < value(seen, "sla_event_lag_ms") < since
    behind = value(seen, "sla_watermark_lag_ms") - value(seen, "sla_event_lag_ms")
    assert abs(behind - DISORDER) < 30_000, "gauges are not read all at one moment"
    assert seen["sla_failures", frozenset()] == 0


def test_each_metric_shown_is_in_the_table_with_its_labels_and_each_of_the_table_is_shown(seen: Seen) -> None:
    table = _table()
    found: dict[str, set[str]] = {}
    for name, labels in seen:
        found.setdefault(name, set()).update(label for label, _ in labels)
    assert found == {name: labels for name, labels in table.items() if name not in TROUBLE}


def test_what_tells_of_trouble_is_in_the_table_and_in_the_code() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (PROJECT / "jobs").glob("*.py"))
    reported = set(re.findall(r'metrics\.(?:count|set)\(\s*"(\w+)"', code)) - {"records_"}
    assert reported <= _table().keys()
    assert reported >= TROUBLE


def _table() -> dict[str, set[str]]:
    """Give the labels of each metric in docs/operations.md."""
    text = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*`) \|(.*?)\| .* \|$", text.partition("\n## Metrics")[2].partition("\n## ")[0], re.M)
    return {
        name: {label.partition("=")[0].strip() for label in labels.split(",") if label.strip()}
        for names, labels in rows
        for name in re.findall(r"`(\w+)`", names)
    }

"""Small streams of plain events for flow tests: their contracts, their records, and what became of each offset."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import httpx
import yaml
from kafka.serializer import Serializer

from jobs.cluster import Cluster
from jobs.kafka.client import KafkaClient
from jobs.launch import Launch, Request
from lakehouse.lake import Lake
from lakehouse.parking import Parking
from tests.flows.pipeline import Pipeline

T = TypeVar("T")
ID = {"name": "id", "logicalType": "integer", "physicalType": "bigint", "required": True}
NOTE = {"name": "note", "logicalType": "string", "physicalType": "text"}
Column = Mapping[str, Any]
Event = Mapping[str, Any] | bytes | None


def setting(name: str, value: Any) -> dict[str, Any]:
    """Give one of our settings as contracts write it."""
    return {"vendor": "tidegate", "property": name, "value": value}


def write_contract(
    folder: Path, stream: str, topic: str, columns: Sequence[Column] = (ID, NOTE), **settings: Any
) -> Path:
    """Write the contract of a stream of plain JSON events, and give the folder."""
    given = {"encoding": "json", "envelope": "plain", **settings}
    contract = {
        "apiVersion": "v3.2.0",
        "kind": "DataContract",
        "id": f"flow-{stream}",
        "version": "1.0.0",
        "status": "active",
        "customProperties": [setting(name, value) for name, value in given.items()],
        "schema": [{"name": stream, "physicalName": topic, "physicalType": "topic", "properties": list(columns)}],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stream}.odcs.yaml").write_text(yaml.safe_dump(contract, sort_keys=False), encoding="utf-8")
    return folder


@dataclass
class Elsewhere(Pipeline):
    """A pipeline whose broker is not the stack's."""

    kafka: str = ""

    def request(self, contracts: Path, **changes: Any) -> Request:
        return replace(super().request(contracts, **changes), kafka=self.kafka)


class _Bytes(Serializer):  # type: ignore[misc]
    def serialize(self, _topic: str, _headers: object, data: object) -> object:
        return data


def produce(kafka: KafkaClient, topic: str, events: Sequence[Event], partition: int = 0) -> None:
    """Write events to one partition, in order; bytes and None (a tombstone) as they are, all else as JSON."""
    with kafka.producer(max_request_size=16 * 1024 * 1024, value_serializer=_Bytes()) as producer:
        sent = [
            producer.send(topic, key=b"{}" if event is None else None, value=_encoded(event), partition=partition)
            for event in events
        ]
        producer.flush()
        for future in sent:
            future.get(timeout=30)


def _encoded(event: Event) -> bytes | None:
    return event if event is None or isinstance(event, bytes) else json.dumps(event, ensure_ascii=False).encode()


def events(first: int, last: int) -> list[dict[str, Any]]:
    """Give events with the ids first to last."""
    return [{"id": n, "note": f"note {n}"} for n in range(first, last + 1)]


def offsets(pipeline: Pipeline, stream: str) -> Counter[tuple[int, int, int]]:
    """Count each (epoch, partition, offset) in changes and quarantine; quarantine rows have no epoch: -1.

    Empty before the first commit.
    """
    sql = f"""
        SELECT _epoch, _partition, _offset FROM {stream}_changes
        UNION ALL SELECT -1, _partition, _offset FROM {stream}_quarantine
    """
    with pipeline.query() as duck:
        return Counter(duck.execute(sql).fetchall() if _there(duck, f"{stream}_changes") else ())


def ids(pipeline: Pipeline, stream: str) -> list[int]:
    """Give the ids in a stream's changes, sorted; empty before the first commit."""
    with pipeline.query() as duck:
        if not _there(duck, f"{stream}_changes"):
            return []
        return [found for (found,) in duck.execute(f"SELECT id FROM {stream}_changes ORDER BY id").fetchall()]


def _there(duck: duckdb.DuckDBPyConnection, table: str) -> bool:
    return bool(duck.execute("SELECT 1 FROM duckdb_views() WHERE view_name = ?", [table]).fetchall())


def parked(pipeline: Pipeline) -> dict[str, str]:
    """Give the parked streams with their reasons."""
    return {entry.stream: entry.reason for entry in Parking(Lake.open(str(pipeline.lake)), pipeline.name).all()}


@contextmanager
def running(pipeline: Pipeline, contracts: Path, **changes: Any) -> Iterator[tuple[Launch, str]]:
    """Let the pipeline's job run during the block; gives how it was launched, and its id."""
    launch = Launch(pipeline.request(contracts, **changes))
    job_id = launch.submit()
    try:
        yield launch, job_id
    finally:
        while left := launch.cluster.running(f"tidegate {pipeline.name}"):
            launch.cluster.cancel(left)


def until(what: str, found: Callable[[], T], seconds: float = 150.0) -> T:
    """Wait until something is found, and give it."""
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.3)
    return answer


def metric(cluster: Cluster, job_id: str, name: str) -> set[str]:
    """Give the values that Flink's metrics have for all subtasks of all operators; empty while there are none."""
    return {value for shown, value in metrics(cluster, job_id).items() if shown.endswith(f".{name}")}


def metrics(cluster: Cluster, job_id: str) -> dict[str, str]:
    """Give all of our metrics as the dashboard has them: task and <subtask>.<operator>.tidegate.<...>.<name>."""
    found: dict[str, str] = {}
    for vertex in rest(cluster, f"/jobs/{job_id}")["vertices"]:
        path = f"/jobs/{job_id}/vertices/{vertex['id']}/metrics"
        names = [entry["id"] for entry in rest(cluster, path) if ".tidegate." in entry["id"]]
        for start in range(0, len(names), 50):  # they are asked for in the address's query
            asked = rest(cluster, path, get=",".join(names[start : start + 50]))
            found |= {f"{vertex['id']}.{entry['id']}": entry["value"] for entry in asked}
    return found


def rest(cluster: Cluster, path: str, **query: str) -> Any:
    """Give what the cluster's REST interface answers."""
    return httpx.get(f"{cluster.dashboard}{path}", params=query, trust_env=False, timeout=10).json()

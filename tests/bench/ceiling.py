"""The ceilings: the Kafka source alone, and the source with the hand-over to a Python function that does nothing."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from jobs.cluster import FINISHED, Cluster
from jobs.flink_client import submit_job
from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import earliest_offsets, fresh_group, partitions_of
from jobs.stack import Stack
from tests.bench.processes import Processes

JOB = Path(__file__).with_name("ceiling_job.py")
POLL_SECONDS = 0.5
KINDS = ("source", "handover")


@dataclass(frozen=True)
class Ceiling:
    """What a job that does nothing reached."""

    kind: str
    rate: float  # records/s, first to last sample with records flowing
    startup_seconds: float  # submission to the first records
    cores: Mapping[str, float]

    def micros(self, role: str) -> float:
        """Give the CPU microseconds a record that a role took."""
        return self.cores.get(role, 0.0) / self.rate * 1e6


def measure(
    stack: Stack, topics: Sequence[str], kind: str, records: int, settings: Mapping[str, str] | None = None
) -> Ceiling:
    """Run one of KINDS over topics that hold so many records, from the first to the last.

    `settings` are laid over flink-conf.yaml for this job.
    """
    cluster, kafka = Cluster(stack.flink_address), KafkaClient.from_file(None, stack.kafka_address)
    options = _options(kafka, topics)
    with Processes(stack) as processes:
        submitted = time.monotonic()
        job = submit_job(cluster.address, JOB, [kind, json.dumps(options)], settings)
        seen = _watch(cluster, job, records)
    flowing = [s for s in seen if s[1]]
    start, end = flowing[0], next((s for s in flowing if s[1] >= records), flowing[-1])
    rate = (end[1] - start[1]) / max(end[0] - start[0], 1e-9)
    return Ceiling(kind, rate, start[0] - submitted, processes.cores(start[0], end[0]))


def _options(kafka: KafkaClient, topics: Sequence[str]) -> dict[str, str]:
    group = f"tidegate-ceiling-{uuid.uuid4().hex}"
    fresh_group(kafka, group, earliest_offsets(kafka, partitions_of(kafka, topics)))
    return {
        "topic": ";".join(topics),
        "properties.bootstrap.servers": kafka.bootstrap,
        "properties.group.id": group,
        "properties.auto.offset.reset": "earliest",
        "properties.commit.offsets.on.checkpoint": "false",
        "properties.isolation.level": "read_committed",
        "scan.bounded.mode": "latest-offset",
    }


def _watch(cluster: Cluster, job: str, records: int) -> list[tuple[float, int]]:
    """Give (monotonic seconds, records read so far) until the job has read them all."""
    seen: list[tuple[float, int]] = []
    while True:
        state = cluster.state(job)
        if state == "FAILED":
            raise RuntimeError(f"the ceiling job failed: {cluster.why_failed(job)}")
        seen.append((time.monotonic(), _records_read(cluster, job)))
        if state in FINISHED or state is None or seen[-1][1] >= records:
            break
        time.sleep(POLL_SECONDS)
    if state not in (None, *FINISHED):
        with suppress(httpx.HTTPStatusError):  # it has just ended by itself
            cluster.cancel(job)
    return seen


def _records_read(cluster: Cluster, job: str) -> int:
    """Give how many records the source has given on, over all its subtasks."""
    address = f"http://{cluster.address}/jobs/{job}"
    total = 0
    for vertex in _get(address)["vertices"]:
        if "Source" not in vertex["name"]:
            continue
        metrics = f"{address}/vertices/{vertex['id']}/subtasks/metrics"
        names = [m["id"] for m in _get(metrics) if m["id"].startswith("Source") and m["id"].endswith("numRecordsOut")]
        if names:
            total += sum(int(m["sum"]) for m in _get(f"{metrics}?get={','.join(names)}"))
    return total


def _get(url: str) -> Any:
    return httpx.get(url, timeout=10.0, trust_env=False).raise_for_status().json()

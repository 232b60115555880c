"""A disk that fills up while the job runs: it says so and tries again; with room again each offset is there once."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.cluster import Cluster
from jobs.kafka.client import KafkaClient
from jobs.kafka.topics import ensure_topics
from jobs.stack import Stack
from tests.flows.pipeline import Pipeline
from tests.flows.streams import events, ids, offsets, parked, produce, rest, running, until, write_contract

pytestmark = pytest.mark.integration

SMALL, LARGE = "2m", "256m"
FEW, MANY = 20, 3_000  # records that fit, and all; those beyond the few hold 2,000 bytes that no packing makes smaller
FOLDERS = {"the lake": ".", "its segments": "_tidegate/segments", "one table": "filling_changes"}


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Let a folder be a disk of its own, with little room."""
    folder.mkdir(parents=True, exist_ok=True)
    refused = _mount("-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder))
    if refused:
        reason = f"a full disk needs a small one, and none can be mounted here: {refused}. Run the tests as root"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def make_room(folder: Path) -> None:
    """Give the disk of a folder more room."""
    refused = _mount("-o", f"remount,size={LARGE}", str(folder))
    assert not refused, refused


def _mount(*arguments: str) -> str:
    """Mount, and give what was said when that is refused."""
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "there is no program `mount`"
    return (done.stderr.strip() or f"mount ended with {done.returncode}") if done.returncode else ""


def failures(cluster: Cluster, job_id: str) -> list[dict[str, Any]]:
    """Give the failures that the cluster recorded for the job."""
    found: list[dict[str, Any]] = rest(cluster, f"/jobs/{job_id}/exceptions")["exceptionHistory"]["entries"]
    return found


@pytest.mark.parametrize("full", FOLDERS)
def test_a_disk_that_fills_up_costs_time_and_no_record(
    stack: Stack, kafka: KafkaClient, tmp_path: Path, full: str
) -> None:
    name = full.replace(" ", "-")
    topic, folder = f"disk.{name}", tmp_path / "lake" / FOLDERS[full]
    contracts = write_contract(tmp_path / "contracts", "filling", topic)
    ensure_topics(kafka, {topic: 1})
    pipeline = Pipeline(stack, tmp_path / "lake", f"disk-{name}")
    produce(kafka, topic, events(1, FEW))
    with small_disk(folder), running(pipeline, contracts) as (launch, job_id):
        until("the first records are there", lambda: ids(pipeline, "filling") == list(range(1, FEW + 1)))

        large = [
            {"id": n, "note": base64.b64encode(secrets.token_bytes(1500)).decode()} for n in range(FEW + 1, MANY + 1)
        ]
        produce(kafka, topic, large)
        until("the cluster tells of the disk", lambda: "DiskFull" in (launch.cluster.why_failed(job_id) or ""))
        said = launch.cluster.why_failed(job_id) or ""
        assert "No space left on device" in said
        assert "Free space" in said
        until("it is tried again", lambda: len(failures(launch.cluster, job_id)) >= 3)
        before = offsets(pipeline, "filling")
        assert FEW <= len(before) < MANY
        assert set(before.values()) == {1}

        make_room(folder)
        until("all is committed", lambda: len(offsets(pipeline, "filling")) == MANY)
        assert offsets(pipeline, "filling") == {(0, 0, offset): 1 for offset in range(MANY)}
        assert not parked(pipeline)
        with pipeline.query() as duck:
            found = dict(duck.execute("SELECT id, note FROM filling_changes").fetchall())
        assert all(found[event["id"]] == event["note"] for event in (*events(1, FEW), *large))
        assert launch.cluster.state(job_id) == "RUNNING"

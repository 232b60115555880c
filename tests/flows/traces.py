"""Everything that a stack shows, writes or passes on: where a secret could come to light."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import httpx
import psutil

from jobs.cluster import Cluster

Traces = dict[str, bytes]  # where -> what stands there

OF_JOB = (
    "",
    "/plan",
    "/config",
    "/exceptions",
    "/checkpoints",
    "/checkpoints/config",
    "/accumulators",
    "/jobmanager/config",
)
OF_VERTEX = ("", "/accumulators", "/metrics", "/taskmanagers", "/subtasktimes", "/subtasks/accumulators", "/watermarks")
OF_MANAGER = ("/config", "/environment", "/metrics", "/log", "/stdout", "/thread-dump")


def shown(cluster: Cluster, job_id: str, endpoints: tuple[str, ...]) -> Traces:
    """Give what Flink's REST interface tells of a job and its managers, their logs included, and the metrics."""
    found = {path: _get(f"{cluster.dashboard}{path}") for path in _paths(cluster, job_id)}
    answered = {path: text for path, text in found.items() if text is not None}
    return answered | {endpoint: _get(endpoint) or b"" for endpoint in endpoints}


def _paths(cluster: Cluster, job_id: str) -> Iterator[str]:
    yield from ("/config", "/overview", "/jobs/overview", "/jars", "/datasets")
    job = f"/jobs/{job_id}"
    yield from (f"{job}{part}" for part in OF_JOB)
    for vertex in _json(cluster, job)["vertices"]:
        yield from (f"{job}/vertices/{vertex['id']}{part}" for part in OF_VERTEX)
    managers = [f"/taskmanagers/{entry['id']}" for entry in _json(cluster, "/taskmanagers")["taskmanagers"]]
    for manager in ("/jobmanager", *managers):
        yield manager
        yield from (f"{manager}{part}" for part in OF_MANAGER)
        yield from (f"{manager}/logs/{log['name']}" for log in _json(cluster, f"{manager}/logs")["logs"])


def _json(cluster: Cluster, path: str) -> dict[str, list[dict[str, str]]]:
    answer: dict[str, list[dict[str, str]]] = httpx.get(
        f"{cluster.dashboard}{path}", trust_env=False, timeout=10
    ).json()
    return answer


def _get(url: str) -> bytes | None:
    """Give what stands there; None where this Flink has no such page."""
    answer = httpx.get(url, trust_env=False, timeout=30)
    return answer.content if answer.is_success else None


def written(*folders: Path) -> Traces:
    """Give all files below the folders; what is linked to is not ours."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path): content for path in files if (content := _read(path)) is not None}


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # a checkpoint that was replaced
        return None


class CommandLines:
    """The command lines of all processes that run at some time during the block."""

    def __init__(self) -> None:
        self.seen: Traces = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> CommandLines:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            for process in psutil.process_iter(["cmdline"]):
                line = " ".join(process.info["cmdline"] or ())
                self.seen[line] = line.encode()


def places(traces: Traces, value: str) -> list[str]:
    """Give where a value stands."""
    return [where for where, content in traces.items() if value.encode() in content]

"""One stream whose commit takes minutes must not hold up another: two streams, one table on slow storage."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contracts.model import Contract, Encoding
from jobs.stack import Stack
from lakehouse.lake import Lake
from lakehouse.standing import standing_of
from tests.bench.endtoend import PIPELINE, Pipeline, check_running
from tests.bench.generate import Load, pace
from tests.bench.slow_proxy import SlowProxy

SLOW, FAST = "bench.slow", "bench.fast"
PER_SECOND = 1_000
REQUEST_SECONDS = 10.0  # until a request is refused; clients give up after 30
POLL_SECONDS = 0.5
RECOVERY_SECONDS = 60.0


@dataclass(frozen=True)
class Isolation:
    """How long the slow stream's commit took, and how far behind the other was meanwhile (seconds)."""

    slow_seconds: float
    fast_worst: float
    delayed_requests: int


@contextmanager
def slow_stack(home: Path) -> Iterator[tuple[Stack, SlowProxy, Mapping[str, str]]]:
    """Give a stack whose Flink reaches S3 through a proxy, the proxy, and the variables of the way around it."""
    with Stack(home, ("kafka", "s3")) as servers, SlowProxy(servers.address("s3")) as proxy:
        variables = {**servers.s3_environment, "AWS_ENDPOINT_URL": f"http://{proxy.address}"}
        with _environment(variables), Stack(home, ("flink",)) as stack:
            yield stack, proxy, servers.s3_environment


def measure(
    stack: Stack, proxy: SlowProxy, direct: Mapping[str, str], home: Path, slow_for: float = 180.0
) -> Isolation:
    """Run two streams; make the storage of one slow until a commit took that long; watch the other's lag."""
    load = Load(stack.kafka_address, [SLOW, FAST], 4, Encoding.JSON)
    load.create()
    pipeline = Pipeline(stack, home / "run", load, lake=f"{stack.lake}/isolation-{time.time_ns()}")
    writer = threading.Thread(target=pace, args=(load, PER_SECOND, slow_for + 60.0), daemon=True)
    with pipeline.running() as launch:
        writer.start()
        slow, fast = sorted(launch.contracts, key=lambda c: c.stream, reverse=True)
        lake = Lake.open(launch.lake.uri, direct)
        _await_first(lake, (slow, fast))
        proxy.slow(f"{slow.stream}_changes", REQUEST_SECONDS)
        stuck = _Standstill(lake, slow)
        moving = _Standstill(lake, fast)
        begun = time.monotonic()
        while stuck.longest < slow_for:
            check_running(launch)
            stuck.look()
            moving.look()
            if time.monotonic() - begun > slow_for:
                proxy.slow(None, 0)
            if time.monotonic() - begun > slow_for + RECOVERY_SECONDS:
                raise TimeoutError(f"the slow stream did not commit within {RECOVERY_SECONDS:.0f} s of fast storage")
            time.sleep(POLL_SECONDS)
    writer.join()
    return Isolation(stuck.longest, moving.longest, proxy.delayed)


class _Standstill:
    """The longest time for which a stream's committed offsets stood still."""

    def __init__(self, lake: Lake, contract: Contract) -> None:
        self._lake, self._contract = lake, contract
        self._seen: Mapping[tuple[str, int], int] = {}
        self._since = time.monotonic()
        self.longest = 0.0

    def look(self) -> None:
        progress = standing_of(self._lake, self._contract, PIPELINE).progress
        now = time.monotonic()
        if progress != self._seen:
            self.longest = max(self.longest, now - self._since)
            self._seen, self._since = progress, now


def _await_first(lake: Lake, contracts: tuple[Contract, ...]) -> None:
    until = time.monotonic() + 120
    while not all(standing_of(lake, contract, PIPELINE).progress for contract in contracts):
        if time.monotonic() > until:
            raise TimeoutError("no first commit within two minutes")
        time.sleep(POLL_SECONDS)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value

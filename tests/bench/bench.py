"""What the benchmarks share: a stack, topics that hold records, and results that several sections need."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from contracts.model import Encoding
from jobs.stack import Stack
from tests.bench import endtoend
from tests.bench.as_avro import KEY_SCHEMA, VALUE_SCHEMA
from tests.bench.endtoend import Pipeline, Run
from tests.bench.generate import Load, load

FLINK = {"metrics.fetcher.update-interval": "500"}
MINUTES = 15.0  # of the sustained run


@dataclass
class Bench:
    """What the benchmarks share: a stack, loaded topics, and results that several sections need."""

    home: Path
    records: int
    quick: bool = False
    minutes: float = MINUTES
    say: Callable[[str], None] = print  # progress of what takes long
    _stack: Stack | None = None
    _loads: dict[tuple[Encoding, int], Load] = field(default_factory=dict)
    _runs: dict[tuple[Encoding, int], Run] = field(default_factory=dict)

    @contextmanager
    def stack(self) -> Iterator[Stack]:
        """Give a running stack, for the block and no longer."""
        with Stack(self.home, ("kafka", "flink", "registry"), {"flink": FLINK}) as stack:
            self._stack = stack
            try:
                yield stack
            finally:
                self._stack = None

    @property
    def running(self) -> Stack:
        """Give the stack that runs."""
        if self._stack is None:
            raise RuntimeError("start the stack first")
        return self._stack

    @property
    def folder(self) -> Path:
        """Give the folder for what is made without the stack."""
        self.home.mkdir(parents=True, exist_ok=True)
        return self.home

    @property
    def registry(self) -> str:
        """Give the registry's address."""
        return self.running.registry_url

    def load(self, encoding: Encoding, topics: int = 1, partitions: int = 4) -> Load:
        """Give topics that hold the records, written when they are first asked for."""
        key = (encoding, topics)
        if key not in self._loads:
            self._loads[key] = self.empty(encoding, f"load{topics}", topics, partitions)
            load(self._loads[key], self.records)
        return self._loads[key]

    def empty(self, encoding: Encoding, name: str, topics: int = 1, partitions: int = 4) -> Load:
        """Give topics that hold nothing yet."""
        ids = register(self.registry) if encoding is Encoding.AVRO else (0, 0)
        names = [f"bench.{encoding.value}.{name}.{n}" for n in range(topics)]
        return Load(self.running.kafka_address, names, partitions, encoding, ids)

    def run(self, encoding: Encoding, topics: int = 1, partitions: int = 4) -> Run:
        """Give the result of one end-to-end run, made when it is first asked for."""
        key = (encoding, topics)
        if key not in self._runs:
            what = self.load(encoding, topics, partitions)
            registry = self.registry if encoding is Encoding.AVRO else None
            pipeline = Pipeline(self.running, self.home / "run", what, registry)
            self._runs[key] = endtoend.throughput(pipeline, self.records)
            shutil.rmtree(self.home / "run")
        return self._runs[key]


def register(registry: str) -> tuple[int, int]:
    """Register the schemas of key and value, and give their ids."""
    found = []
    for subject, schema in (("bench-key", KEY_SCHEMA), ("bench-value", VALUE_SCHEMA)):
        answer = httpx.post(
            f"{registry}/subjects/{subject}/versions", json={"schema": schema}, timeout=10.0, trust_env=False
        )
        found.append(int(answer.raise_for_status().json()["id"]))
    return found[0], found[1]

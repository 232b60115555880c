"""What each process of the stack costs while the job runs: CPU seconds and resident memory, sampled."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType

import psutil

from jobs.stack import Stack

INTERVAL_SECONDS = 0.5
FLINK = ("taskmanager", "python workers")  # what the memory limit is about


@dataclass(frozen=True)
class Sample:
    """One look at all processes: monotonic seconds; by role CPU seconds so far, resident bytes, and those of files."""

    at: float
    cpu: Mapping[str, float]
    resident: Mapping[str, int]
    mapped: Mapping[str, int]  # part of the resident bytes: pages of files, which the page cache can give back


@dataclass
class Processes:
    """Watches the stack's processes from a thread, while its block runs."""

    stack: Stack
    samples: list[Sample] = field(default_factory=list)

    def __enter__(self) -> Processes:
        self._ended: dict[int, tuple[str, float]] = {}  # workers that are gone still count
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            self.samples.append(self._look())

    def _look(self) -> Sample:
        cpu: dict[str, float] = {}
        resident: dict[str, int] = {}
        mapped: dict[str, int] = {}
        for role, process in self._processes():
            try:
                times, memory = process.cpu_times(), process.memory_info()
            except psutil.Error:
                continue
            self._ended[process.pid] = (role, times.user + times.system)
            resident[role] = resident.get(role, 0) + memory.rss
            mapped[role] = mapped.get(role, 0) + getattr(memory, "shared", 0)
        for role, seconds in self._ended.values():
            cpu[role] = cpu.get(role, 0.0) + seconds
        return Sample(time.monotonic(), cpu, resident, mapped)

    def _processes(self) -> list[tuple[str, psutil.Process]]:
        found = [(status.process, status.pid) for status in self.stack.status() if status.pid]
        named = [(name, psutil.Process(pid)) for name, pid in found if psutil.pid_exists(pid)]
        return [*named, *(("python workers", worker) for worker in self.stack.workers())]

    def cores(self, start: float, end: float) -> dict[str, float]:
        """Give how many cores each role kept busy between two moments (monotonic seconds)."""
        first, last = self._at(start), self._at(end)
        seconds = max(last.at - first.at, 1e-9)
        return {role: (used - first.cpu.get(role, 0.0)) / seconds for role, used in last.cpu.items()}

    def peaks(self) -> dict[str, int]:
        """Give the most memory (bytes) each role had, and the most that TaskManager and workers had together."""
        roles = {role for sample in self.samples for role in sample.resident}
        peaks = {role: max(sample.resident.get(role, 0) for sample in self.samples) for role in roles}
        return {**peaks, "together": max(self.flink_memory())}

    def anonymous(self, role: str) -> list[int]:
        """Give the memory (bytes) of a role that no file backs, sample by sample."""
        return [sample.resident.get(role, 0) - sample.mapped.get(role, 0) for sample in self.samples] or [0]

    def flink_memory(self) -> list[int]:
        """Give the memory of TaskManager and workers together, sample by sample."""
        return [sum(sample.resident.get(role, 0) for role in FLINK) for sample in self.samples] or [0]

    def _at(self, moment: float) -> Sample:
        index = bisect_left([sample.at for sample in self.samples], moment)
        return self.samples[min(index, len(self.samples) - 1)]

"""The other clock is one that a whole process sees, and time still passes in it as it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.chaos.clock import behind, set_by, step_back

LOOK = """
import json, threading, time
for _ in range(4):
    print(json.dumps((time.time(), time.monotonic())), flush=True)
    threading.Event().wait(1.0)
"""


def reader(environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a process that reads its two clocks, four times with a second between."""
    return subprocess.Popen(
        [sys.executable, "-c", LOOK], env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )


def seen(process: subprocess.Popen[str]) -> list[tuple[float, float]]:
    """Give what the process has read (s)."""
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return [(wall, steady) for wall, steady in map(json.loads, said.splitlines())]


def test_a_host_that_is_behind_differs_in_its_wall_clock_only() -> None:
    before = time.time() - time.monotonic()
    for wall, steady in seen(reader(behind(30))):
        assert abs(wall - steady - before + 30) < 1.5


def test_the_clock_of_all_processes_of_a_host_steps_back_once_while_they_run(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    before = time.time() - time.monotonic()
    processes = [reader(set_by(file)) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()  # it runs
    step_back(file, 15)
    for process in processes:
        steps = [round(wall - steady - before) for wall, steady in seen(process)]
        assert steps[-1] == -15
        assert steps == sorted(steps, reverse=True)
        assert set(steps) <= {0, -15}

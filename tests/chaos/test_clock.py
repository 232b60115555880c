"""The other clock is one that a whole process sees, and time still passes in it as it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from itertools import pairwise

from tests.chaos.clock import behind, stepping_back

LOOK = """
import json, threading, time
seen = []
for _ in range(3):
    seen.append((time.time(), time.monotonic()))
    threading.Event().wait(1.0)
print(json.dumps(seen))
"""


def seen(environment: Mapping[str, str]) -> list[tuple[float, float]]:
    """Give what a process reads on its two clocks (s), three times with a second between."""
    command = [sys.executable, "-c", LOOK]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    return [(wall, steady) for wall, steady in json.loads(done.stdout)]


def test_a_host_that_is_behind_differs_in_its_wall_clock_only() -> None:
    before = time.time() - time.monotonic()
    for wall, steady in seen(behind(30)):
        assert abs(wall - steady - before + 30) < 1.5


def test_a_clock_steps_back_once_while_the_process_runs() -> None:
    walls = [wall for wall, _ in seen(stepping_back(15, after=1))]
    assert sum(later < earlier for earlier, later in pairwise(walls)) == 1

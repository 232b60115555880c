"""`tidegate demo --live`: a database that changes, tables that equal it, and nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from jobs.stack import Stack
from tests.flows.command import COMMAND, tidegate

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

STREAMS = ("customers", "purchases", "stock")


def test_the_live_demo_ends_with_tables_equal_to_their_sources(tmp_path: Path) -> None:
    others = {"TIDEGATE_KEYS": str(tmp_path / "keys of something else")}  # the demo has its own
    arguments = ("demo", "--live", "--seconds", "15", "--home", str(tmp_path / "home"))
    said = tidegate(*arguments, environment=others, at_most_seconds=400)
    assert said.code == 0, said.words
    assert all(f"equal: {stream}," in said.words for stream in STREAMS)
    assert "column customers.segment was added" in said.words
    assert {p.missing for p in Stack(tmp_path / "home").status()} == {"stopped"}


def test_an_interrupted_live_demo_stops_what_it_started(tmp_path: Path) -> None:
    command = [COMMAND, "demo", "--live", "--seconds", "300", "--home", str(tmp_path / "home")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if b"dashboard" in line:
                break
        started = [p.pid for p in Stack(tmp_path / "home").status() if p.running]
        running.send_signal(signal.SIGINT)
        rest = running.stdout.read().decode()
    assert len(started) == 5
    assert running.returncode == 130, rest
    assert "Traceback" not in rest
    assert {p.missing for p in Stack(tmp_path / "home").status()} == {"stopped"}
    assert not [pid for pid in started if lives(pid)]


def lives(pid: int) -> bool:
    """Say whether a process runs; one that has ended may wait for whoever is to be told."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE

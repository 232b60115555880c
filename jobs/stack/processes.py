"""Start, recognise and end operating system processes; a recycled process number is never touched."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from jobs.stack.component import Process
from jobs.stack.errors import StackError
from jobs.stack.state import Running

# In the environment of every process of a stack, and inherited by the workers that Flink starts: <mark>/<process>.
MARK = "TIDEGATE_STACK"
START_TIME_SLACK = 1.0  # seconds; the kernel counts in clock ticks since a boot time that may be corrected


def start(process: Process, mark: str, log: Path) -> Running:
    """Start a process of its own session (Ctrl-C does not reach it), its output appended to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **process.environment, MARK: f"{mark}/{process.name}"}
    with log.open("ab") as output:
        try:
            child = subprocess.Popen(
                process.command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise StackError(f"{process.name} cannot be started: {error}") from error
    return Running(child.pid, psutil.Process(child.pid).create_time(), str(log))


def find(running: Running) -> psutil.Process | None:
    """Give the process if it is still the one that was started and has not ended."""
    try:
        process = psutil.Process(running.pid)
        if abs(process.create_time() - running.started) > START_TIME_SLACK:
            return None
        return process if _alive(process) else None
    except psutil.NoSuchProcess:
        return None


def marked(mark: str, name: str) -> list[psutil.Process]:
    """Give all processes that the named process of a stack has started, however deep, and whether it lives or not."""
    return [process for process in psutil.process_iter() if _mark_of(process) == f"{mark}/{name}"]


def stop(processes: Iterable[psutil.Process], seconds: float, number: int = signal.SIGTERM) -> None:
    """Ask processes to end, and end those that have not after the given seconds."""
    asked = [process for process in processes if _signal(process, number)]
    for process in _wait(asked, seconds):
        _signal(process, signal.SIGKILL)
        _wait([process], 5.0)


def tail(log: Path, lines: int = 15) -> str:
    """Give the last lines of a log, indented."""
    if not log.exists():
        return "  (no log)"
    with log.open("rb") as content:
        content.seek(max(0, log.stat().st_size - 20_000))
        text = content.read().decode(errors="replace")
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (the log is empty)"


def _wait(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait for processes to end; give those that have not."""
    until = time.monotonic() + seconds
    while (left := [process for process in processes if _alive(process)]) and time.monotonic() < until:
        time.sleep(0.05)
    return left


def _alive(process: psutil.Process) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            _reap(process.pid)
            return False
        return bool(process.is_running())
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, number: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
        return True
    return False


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except psutil.Error:  # it has ended, or belongs to somebody else
        return None


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)

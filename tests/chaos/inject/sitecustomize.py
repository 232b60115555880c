"""Loaded by every Python worker of a chaos run (through PYTHONPATH): breaks things at chosen points, when armed.

A point is armed by a file armed/<point>.json in the folder $TIDEGATE_CHAOS: {"do": kill | stop | sleep, "stream": a
name or null, "seconds": how long to sleep}. The first worker to come by takes the file, says so in events.jsonl, and
does it. Product modules are wrapped right after their import; they know nothing of this.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

VARIABLE = "TIDEGATE_CHAOS"
SEGMENT_WRITTEN = "segment-written"  # the segment is stored, its row not handed on
BEFORE_COMMIT = "before-commit"  # sections are at hand, nothing is written
BETWEEN_TABLES = "between-tables"  # quarantine is committed, changes are not
ON_SNAPSHOT = "on-snapshot"  # the anchor's snapshot is read, the commit on top of it is not made
COMMITTED = "committed"  # all is committed, the report is not returned
POINTS = (SEGMENT_WRITTEN, BEFORE_COMMIT, BETWEEN_TABLES, ON_SNAPSHOT, COMMITTED)

Function = Callable[..., Any]


def say(**event: Any) -> None:
    """Append one event; short lines of several processes do not mix."""
    line = json.dumps({"at": time.time(), "pid": os.getpid(), **event}) + "\n"
    with (Path(os.environ[VARIABLE]) / "events.jsonl").open("a", encoding="utf-8") as events:
        events.write(line)


def pass_by(point: str, stream: str) -> bool:
    """Do what the point is armed with; say whether it was."""
    folder = Path(os.environ[VARIABLE])
    armed = folder / "armed" / f"{point}.json"
    try:
        order = json.loads(armed.read_text(encoding="utf-8"))
        if order["stream"] not in (None, stream):
            return False
        armed.rename(folder / "fired" / f"{point}-{os.getpid()}-{time.time_ns()}.json")
    except (FileNotFoundError, ValueError):  # not armed, being armed, or another worker was faster
        return False
    say(point=point, stream=stream, do=order["do"])
    if order["do"] == "sleep":
        time.sleep(order["seconds"])
    else:
        os.kill(os.getpid(), signal.SIGKILL if order["do"] == "kill" else signal.SIGSTOP)
    return True


def _segments(module: ModuleType) -> None:
    write = module.write_segment

    @wraps(write)
    def write_segment(lake: Any, name: str, sections: Sequence[Any]) -> Any:
        refs = write(lake, name, sections)
        for section in sections:
            pass_by(SEGMENT_WRITTEN, section.stream)
        return refs

    module.write_segment = write_segment  # type: ignore[attr-defined]


def _table(module: ModuleType) -> None:
    commit_table = module.StreamTable.commit

    @wraps(commit_table)
    def commit(table: Any, batch: Any, progress: Any, state: Any, *rest: Any) -> None:
        anchor = bool(state.partitions)  # only the anchor carries them
        stopped = anchor and pass_by(ON_SNAPSHOT, state.stream)
        try:
            commit_table(table, batch, progress, state, *rest)
        except BaseException as error:
            if stopped:
                say(point=ON_SNAPSHOT, stream=state.stream, outcome=type(error).__name__)
            raise
        if stopped:
            say(point=ON_SNAPSHOT, stream=state.stream, outcome="committed")
        if not anchor:
            pass_by(BETWEEN_TABLES, state.stream)

    module.StreamTable.commit = commit


def _commit(module: ModuleType) -> None:
    commit_stream = module.StreamTables.commit

    @wraps(commit_stream)
    def commit(tables: Any, refs: Any, **rest: Any) -> Any:
        pass_by(BEFORE_COMMIT, tables.contract.stream)
        report = commit_stream(tables, refs, **rest)
        pass_by(COMMITTED, tables.contract.stream)
        return report

    module.StreamTables.commit = commit


WRAPPED: dict[str, Callable[[ModuleType], None]] = {
    "lakehouse.segments": _segments,
    "lakehouse.table": _table,
    "lakehouse.commit": _commit,
}


class Wrapping(importlib.abc.MetaPathFinder):
    """Finds the product's modules as usual, and wraps what is in them once they have run."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        """Give the usual spec, with a loader that wraps afterwards."""
        if name not in WRAPPED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            _wrap_after(spec.loader, WRAPPED[name])
        return spec


def _wrap_after(loader: Any, wrap: Callable[[ModuleType], None]) -> None:
    run = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        run(module)
        wrap(module)

    loader.exec_module = exec_module


if VARIABLE in os.environ and os.environ.get("TIDEGATE_STACK", "").endswith("/taskmanager"):
    sys.meta_path.insert(0, Wrapping())

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
BETWEEN_TABLES = "between-tables"  # quarantine is committed, or changes, and others are not
MEMORY_COMMITTED = "memory-committed"  # the memory of deletes is committed, history is not
HISTORY_COMMITTED = "history-committed"  # history is committed, current is not
ON_SNAPSHOT = "on-snapshot"  # the anchor's snapshot is read, the commit on top of it is not made
COMMITTED = "committed"  # all is committed, the report is not returned
# Of one commit to a merge-on-read table, whichever comes by:
PARQUET_WRITTEN = "parquet-written"  # the data files are stored, the commit is not
VECTORS_WRITTEN = "vectors-written"  # the deletion vectors are stored, the commit is not
BEFORE_PUT = "before-put"  # all is stored but the commit
PUT = "put"  # the commit is stored, its writer does not know it yet
POINTS = (
    SEGMENT_WRITTEN, BEFORE_COMMIT, BETWEEN_TABLES, MEMORY_COMMITTED, HISTORY_COMMITTED, ON_SNAPSHOT, COMMITTED,
    PARQUET_WRITTEN, VECTORS_WRITTEN, BEFORE_PUT, PUT,
)  # fmt: skip
ON_MEMORY, ON_HISTORY = "on-memory", "on-history"  # as ON_SNAPSHOT, of tables that are not the anchor
ON_TABLES = (ON_MEMORY, ON_HISTORY, ON_SNAPSHOT)
AFTER = {"memory": MEMORY_COMMITTED, "history": HISTORY_COMMITTED}  # table kind -> the point after its commit

Function = Callable[..., Any]


def say(**event: Any) -> None:
    """Append one event; short lines of several processes do not mix."""
    line = json.dumps({"at": time.time(), "pid": os.getpid(), **event}) + "\n"
    with (Path(os.environ[VARIABLE]) / "events.jsonl").open("a", encoding="utf-8") as events:
        events.write(line)


def pass_by(point: str, stream: str, **facts: Any) -> bool:
    """Do what the point is armed with, and say so with facts; gives whether it was armed."""
    folder = Path(os.environ[VARIABLE])
    armed = folder / "armed" / f"{point}.json"
    try:
        order = json.loads(armed.read_text(encoding="utf-8"))
        if order["stream"] not in (None, stream):
            return False
        armed.rename(folder / "fired" / f"{point}-{os.getpid()}-{time.time_ns()}.json")
    except (FileNotFoundError, ValueError):  # not armed, being armed, or another worker was faster
        return False
    say(point=point, stream=stream, do=order["do"], **facts)
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
    apply = module.StreamTable.apply

    @wraps(apply)
    def wrapped(table: Any, batch: Any, progress: Any, state: Any) -> None:
        _on_snapshot(table, state, lambda: apply(table, batch, progress, state))

    module.StreamTable.apply = wrapped


def _merge_table(module: ModuleType) -> None:
    commit, write_files = module.MergeTable.commit, module.write_files

    @wraps(commit)
    def wrapped(table: Any, append: Any, remove: Any, progress: Any, state: Any, **rest: Any) -> Any:
        return _on_snapshot(table, state, lambda: commit(table, append, remove, progress, state, **rest))

    @wraps(write_files)
    def write(lake: Any, table: str, rows: Any, *rest: Any, **more: Any) -> Any:
        written = write_files(lake, table, rows, *rest, **more)
        if written:
            pass_by(PARQUET_WRITTEN, table)
        return written

    module.MergeTable.commit = wrapped
    module.write_files = write  # type: ignore[attr-defined]


def _marking(module: ModuleType) -> None:
    marked = module.Marking.marked

    @wraps(marked)
    def mark(marking: Any) -> Any:
        actions, vectors = marked(marking)
        if vectors:
            pass_by(VECTORS_WRITTEN, marking._table)
        return actions, vectors

    module.Marking.marked = mark


def _on_snapshot(table: Any, state: Any, commit: Function) -> Any:
    """Make one table's commit, with the points before and after it; of a commit that was stopped, say how it went."""
    if state is None:
        return commit()
    anchor = bool(state.partitions)  # only the anchor carries them
    point = ON_SNAPSHOT if anchor else f"on-{table.kind.name}"
    stopped = pass_by(point, state.stream, table=table.name, version=table.version)
    try:
        made = commit()
    except BaseException as error:
        if stopped:
            say(point=point, stream=state.stream, outcome=type(error).__name__)
        raise
    if stopped:
        say(point=point, stream=state.stream, outcome="committed")
    if not anchor:
        pass_by(AFTER.get(table.kind.name, BETWEEN_TABLES), state.stream)
    return made


def _log(module: ModuleType) -> None:
    put_commit = module.DeltaLog.put_commit

    @wraps(put_commit)
    def put(log: Any, version: int, actions: Any) -> Any:
        pass_by(BEFORE_PUT, log.table)
        made = put_commit(log, version, actions)
        if made:
            pass_by(PUT, log.table)
        return made

    module.DeltaLog.put_commit = put


def _commit(module: ModuleType) -> None:
    commit_stream = module.StreamTables.commit

    @wraps(commit_stream)
    def commit(tables: Any, refs: Any, **rest: Any) -> Any:
        pass_by(BEFORE_COMMIT, tables.contract.stream)
        report = commit_stream(tables, refs, **rest)
        pass_by(COMMITTED, tables.contract.stream)
        return report

    module.StreamTables.commit = commit


def _kept_index(module: ModuleType) -> None:
    """Keep indexes that are small: a chaos run has not so many keys."""
    module.ENTRIES = 2_000  # type: ignore[attr-defined]


WRAPPED: dict[str, Callable[[ModuleType], None]] = {
    "lakehouse.segments": _segments,
    "lakehouse.table": _table,
    "lakehouse.merge.log": _log,
    "lakehouse.merge.marking": _marking,
    "lakehouse.merge.merge_table": _merge_table,
    "lakehouse.commit": _commit,
    "lakehouse.merge.kept_index": _kept_index,
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

"""Upkeep of a stream's tables by their own writer, between its commits, in slices of bounded time.

An outsider's compaction loses every race against a busy writer; the writer's own does not have to race. What others
want done they ask for (Requests), and the writer sees it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import obstore
import orjson
from obstore.exceptions import NotFoundError

from lakehouse.lake import Lake
from lakehouse.lanes import WHOLE, Lane
from lakehouse.merge.compaction import Compacted, compact, pressing, slices
from lakehouse.merge.merge_table import MergeTable
from lakehouse.merge.protocol import verify_rewritable
from lakehouse.progress import Writer
from lakehouse.state.expiry import forget
from lakehouse.state.table import StateTable
from lakehouse.table import Contested, StreamTable
from lakehouse.tables import INDEXED, AnyTable

FOLDER = "_tidegate/maintenance"
BUDGET = 0.5  # seconds of one call; a slice that was begun is finished
EVERY, PRESSING_EVERY = 10.0, 2.0  # seconds between two looks at one table
APPENDED_EVERY = 60.0  # at a table that only grows, and has no deleted rows
FORGET_EVERY = 300.0  # seconds between two looks for old records of deletes
ASKED_EVERY = 15.0  # seconds between two looks for requests


@dataclass
class Upkept:
    """What one call did."""

    files: int = 0  # rewritten
    commits: int = 0
    records: int = 0  # of deletes, forgotten
    lost: int = 0  # races
    failures: list[str] = field(default_factory=list)


class Requests:
    """Asks the writers of one pipeline's streams to compact all there is to compact; they do it as they commit."""

    def __init__(self, lake: Lake, pipeline: str) -> None:
        self._lake = lake
        self._pipeline = pipeline

    def ask(self, stream: str) -> None:
        """Write the request; asking again changes nothing."""
        self._lake.put(self._path(stream), orjson.dumps({"stream": stream, "asked_ms": int(time.time() * 1000)}))

    def standing(self, stream: str) -> bool:
        """Say whether a stream's writer is asked."""
        return self._lake.exists(self._path(stream))

    def all(self) -> set[str]:
        """Give the streams whose writers are asked."""
        with self._lake.explained("list the requests for maintenance"):
            try:
                folder = f"{FOLDER}/{self._pipeline}/"
                found = obstore.list_with_delimiter(self._lake.objects, prefix=folder)["objects"]
            except (FileNotFoundError, NotFoundError):
                return set()
        names = (entry["path"].rpartition("/")[2] for entry in found)
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def done(self, stream: str) -> None:
        """Remove the request."""
        self._lake.delete([self._path(stream)])

    def _path(self, stream: str) -> str:
        return f"{FOLDER}/{self._pipeline}/{stream}.json"


@dataclass
class _Kept:
    """One table under upkeep, and when it is next looked at."""

    table: MergeTable
    compact: Callable[[float], Compacted]
    every: float
    opens: bool  # nobody else opens it
    next: float


class Upkeep:
    """Keeps the files of a stream's tables few and their deleted rows little. Used by the thread that commits.

    Of several lanes each sees to its own files; what is not of keys, and old records of deletes, are the first one's.
    """

    def __init__(  # noqa: PLR0917 (what a stream's tables are)
        self,
        lake: Lake,
        stream: str,
        tables: Sequence[AnyTable],
        pipeline: str,
        memory_ms: int,
        lane: Lane = WHOLE,
    ) -> None:
        now = time.monotonic()
        self._stream = stream
        self._lane = lane
        own = [table for table in tables if lane.first or isinstance(table, INDEXED)]
        self._kept = [kept for table in own for kept in _kept_of(lake, table, pipeline, now, lane)]
        self._indexed = [table.indexed for table in tables if isinstance(table, INDEXED)]
        self._memory = next((t.indexed for t in tables if isinstance(t, StateTable) and t.kind.name == "memory"), None)
        self._memory_us = memory_ms * 1000
        self._requests = Requests(lake, pipeline)
        self._asked = False
        self._look = self._forget = now

    def run(self, budget: float = BUDGET) -> Upkept:
        """Do what is due, for about so many seconds; never raises, a failure is in what it gives."""
        done, ends = Upkept(), time.monotonic() + budget
        self._guarded(done, self._look_for_requests)
        for kept in sorted(self._kept, key=lambda kept: kept.next):
            now = time.monotonic()
            if now >= ends:
                break
            if now >= kept.next or self._asked:
                kept.next = now + kept.every
                self._guarded(done, partial(self._compact, kept, ends, done))
        if self._memory is not None and self._lane.first and time.monotonic() >= self._forget:
            self._forget = time.monotonic() + FORGET_EVERY
            self._guarded(done, lambda: self._forget_old(done))
        for table in self._indexed:
            self._guarded(done, table.keep)
        if self._asked and not done.commits and not done.lost and not done.failures and time.monotonic() < ends:
            self._guarded(done, self._answer)
        return done

    def _compact(self, kept: _Kept, ends: float, done: Upkept) -> None:
        if kept.opens and not kept.table.open():
            return
        compacted = kept.compact(ends - time.monotonic())
        done.files += compacted.files
        done.commits += compacted.commits
        if pressing(kept.table) and any(slices(kept.table)):
            kept.next = time.monotonic() + PRESSING_EVERY

    def _forget_old(self, done: Upkept) -> None:
        assert self._memory is not None
        done.records += forget(self._memory, time.time_ns() // 1000 - self._memory_us)

    def _look_for_requests(self) -> None:
        if not self._asked and time.monotonic() >= self._look:
            self._look = time.monotonic() + ASKED_EVERY
            self._asked = self._requests.standing(self._stream)

    def _answer(self) -> None:
        if self._lane.first:
            self._requests.done(self._stream)
        self._asked = False

    @staticmethod
    def _guarded(done: Upkept, verb: Callable[[], None]) -> None:
        """Do something that must never fail a commit; the tables are as they were, or as the next look finds them."""
        try:
            verb()
        except Contested:
            done.lost += 1
        except Exception as error:  # noqa: BLE001 (a fault in here is no reason to stop a stream)
            done.failures.append(f"{type(error).__name__}: {error}")


def _kept_of(lake: Lake, table: AnyTable, pipeline: str, now: float, lane: Lane) -> Iterable[_Kept]:
    if isinstance(table, INDEXED):
        yield _Kept(table, table.indexed.maintain, EVERY, False, now + EVERY)
    elif isinstance(table, StreamTable):
        files = rewritable(lake, table, pipeline, lane)
        yield _Kept(files, partial(compact, files), APPENDED_EVERY, True, now + APPENDED_EVERY)


def rewritable(lake: Lake, table: StreamTable | StateTable, pipeline: str, lane: Lane = WHOLE) -> MergeTable:
    """Give the files of any table of a stream, to be rewritten in commits that change no data."""
    return MergeTable(lake, table.kind, table.shape, Writer(pipeline, lane=lane), guard=verify_rewritable)

"""How worn a stream's tables are, as their logs say it: files, deleted rows, small files, length of the log."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import obstore

from contracts.model import Contract
from lakehouse.errors import TableRefused
from lakehouse.kinds import tables_kept
from lakehouse.lake import Lake
from lakehouse.maintained import Maintained, Record
from lakehouse.merge.compaction import is_small
from lakehouse.merge.log import DeltaLog, Snapshot
from lakehouse.tail import commit_info

THREADS = 32  # tables asked at once: each waits for the storage
LOOKED_BACK = 16  # commits before the checkpoint: a table that is written to is rewritten in places more often
_COMMIT = re.compile(r".*/(\d{20})\.json")


@dataclass(frozen=True)
class TableFacts:
    """How one table is at its newest version."""

    table: str
    version: int
    files: int
    bytes: int  # of live files, deleted rows included
    rows: int | None  # live ones; None when the log does not say
    dead: int  # deleted rows in live files
    small_files: int
    commits_since_checkpoint: int
    commits_in_log: int
    compacted_ms: int | None  # when files were last rewritten, as far as the log's end or the last maintenance says
    maintained_ms: int | None  # when `tidegate maintain` last saw to it
    note: str  # what it left to others or could not do

    @property
    def dead_share(self) -> float:
        """Give the share of deleted rows."""
        return self.dead / max(1, (self.rows or 0) + self.dead)


def facts_of(lake: Lake, contracts: Sequence[Contract], pipeline: str) -> dict[str, list[TableFacts]]:
    """Give the facts of each stream's tables that are there, in the order they are committed.

    A table whose log cannot be read is left out. Raises what lakehouse.errors says about the storage.
    """
    maintained = Maintained(lake, pipeline)
    streams = [contract.stream for contract in contracts]
    asked = [(one.stream, kind.table_name(one.stream)) for one in contracts for kind in tables_kept(one)]
    with ThreadPoolExecutor(THREADS) as pool:
        records = dict(zip(streams, pool.map(maintained.read, streams), strict=True))
        logs = pool.map(lambda one: _read(lake, one[1]), asked)
        found: dict[str, list[TableFacts]] = {stream: [] for stream in streams}
        for (stream, table), read in zip(asked, logs, strict=True):
            if read is not None:
                found[stream].append(_facts(table, *read, records[stream]))
    return found


def _read(lake: Lake, table: str) -> tuple[Snapshot, int] | None:
    """Give the newest snapshot of a table and how many commits its log holds; None when there is no such table."""
    try:
        snapshot = _snapshot(lake, table)
    except (TableRefused, ValueError, KeyError, TypeError):  # damaged
        return None
    return None if snapshot is None else (snapshot, snapshot.version - _oldest(lake, table, snapshot.version) + 1)


def _snapshot(lake: Lake, table: str) -> Snapshot | None:
    log = DeltaLog(lake, table, lambda *_: None)
    snapshot = log.load()
    if snapshot is None:
        return None
    for version in range(snapshot.checkpoint, max(snapshot.checkpoint - LOOKED_BACK, 0), -1):
        commit = None if snapshot.optimized_ms else lake.get(log.commit_path(version))
        if commit is None:
            break
        info = commit_info(commit)
        snapshot.optimized_ms = info.get("timestamp") if info.get("operation") == "OPTIMIZE" else None
    return snapshot


def _oldest(lake: Lake, table: str, newest: int) -> int:
    """Give the lowest version whose commit the log folder holds."""
    oldest = newest
    with lake.explained(f"list the log of table {table}"):
        for entries in obstore.list(lake.objects, f"{table}/_delta_log/", chunk_size=1000):
            versions = [int(match[1]) for entry in entries if (match := _COMMIT.fullmatch(entry["path"]))]
            oldest = min([oldest, *versions])
            if lake.remote and versions:
                break  # S3 lists by name
    return oldest


def _facts(table: str, snapshot: Snapshot, commits: int, record: Record | None) -> TableFacts:
    files = snapshot.files.values()
    counts = [file.rows for file in files]
    known = [count for count in counts if count is not None]
    dead = sum(file.dead for file in files)
    done = record.tables.get(table) if record else None
    rewritten = (snapshot.optimized_ms, done.compacted_ms if done else None)
    return TableFacts(
        table=table,
        version=snapshot.version,
        files=len(counts),
        bytes=sum(file.size for file in files),
        rows=sum(known) - dead if len(known) == len(counts) else None,
        dead=dead,
        small_files=sum(map(is_small, files)),
        commits_since_checkpoint=snapshot.version - max(snapshot.checkpoint, 0),
        commits_in_log=commits,
        compacted_ms=max((ms for ms in rewritten if ms is not None), default=None),
        maintained_ms=record.at_ms if record and done else None,
        note=(done.failure or done.note) if done else "",
    )

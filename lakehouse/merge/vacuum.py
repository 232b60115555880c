"""Vacuum: deletes the data files and deletion vectors that no retained version of a table needs.

delta-rs's own vacuum knows no vectors: in its full mode it would delete live ones that do not lie in a hidden folder,
else it keeps dead ones for good.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import obstore

from lakehouse.lake import Lake
from lakehouse.merge.intervals import interval
from lakehouse.merge.log import Action, DeltaLog, Snapshot, data_file
from lakehouse.merge.vectors import FOLDER

TOMBSTONES = "delta.deletedFileRetentionDuration"  # property: how long checkpoints keep what was removed
TOMBSTONES_DEFAULT = "interval 1 week"
_OURS = re.compile(r"(.*/)?(deletion_vector_[0-9a-f-]{36}\.bin|[^/_.][^/]*\.parquet)")
_HIDDEN = re.compile(rf"(?!{FOLDER}/)[_.][^/=]*/")  # folders that are none of ours; a partition's has an equals sign


@dataclass(frozen=True)
class Vacuumed:
    """What was deleted, or would be."""

    data_files: int
    vector_files: int
    bytes: int


def vacuum(lake: Lake, table: str, retention: timedelta, *, dry_run: bool = False) -> Vacuumed:
    """Delete files that no version needs that was the newest at any time within the retention.

    Only files older than the retention are deleted: it must exceed the longest commit, whose files no version knows
    yet. Versions that were the newest within the retention stay readable. Raises TableRefused for a table that is not
    for this writer, and what lakehouse.errors says about the storage; deleting may then have begun, and is right.
    """
    now = time.time()
    cutoff = datetime.fromtimestamp(now, UTC) - retention
    log = DeltaLog(lake, table)
    snapshot = log.load()
    if snapshot is None:
        return Vacuumed(0, 0, 0)
    needed = _needed(log, snapshot, int(cutoff.timestamp() * 1000), retention)
    with lake.explained(f"vacuum table {table}"):
        stale = [
            (path, size) for path, size, changed in _listed(lake, table) if path not in needed and changed < cutoff
        ]
    if not dry_run:
        lake.delete([f"{table}/{path}" for path, _ in stale])
    vectors = sum(path.endswith(".bin") for path, _ in stale)
    return Vacuumed(len(stale) - vectors, vectors, sum(size for _, size in stale))


def _needed(log: DeltaLog, snapshot: Snapshot, cutoff_ms: int, retention: timedelta) -> set[str]:
    """Give the paths of the files that the newest version needs, or any that was the newest at or after the cutoff."""
    needed = set(_paths(file.add for file in snapshot.files.values()))
    kept = interval(snapshot.configuration.get(TOMBSTONES) or TOMBSTONES_DEFAULT)
    told = snapshot.checkpoint if kept is not None and retention <= kept else -1  # by a checkpoint, up to here
    for version in range(snapshot.version, -1, -1):
        actions = log.read(version) if version > told else None
        if actions is None:  # the checkpoint says what was removed before, also where the log was cleaned up
            needed.update(_paths(r for r in log.tombstones(snapshot) if r.get("deletionTimestamp", 0) >= cutoff_ms))
            break
        said = [int(a["commitInfo"].get("timestamp", cutoff_ms)) for a in actions if "commitInfo" in a]
        if said and said[0] < cutoff_ms:
            break  # what it and earlier ones removed was in use before the retention only
        needed.update(_paths(action["remove"] for action in actions if "remove" in action))
    return needed


def _paths(described: Iterable[Action]) -> Iterator[str]:
    """Give the paths of files, and of their vectors, from add or remove actions."""
    for action in described:
        file = data_file(action)
        yield file.path
        if file.vector and file.vector.storage == "u":
            yield file.vector.path


def _listed(lake: Lake, table: str) -> Iterator[tuple[str, int, datetime]]:
    """Give path, bytes and age of every object in the table's folder that is a data file or a vector file."""
    for entries in obstore.list(lake.objects, f"{table}/"):
        for entry in entries:
            path = entry["path"].removeprefix(f"{table}/")
            if _OURS.fullmatch(path) and not _HIDDEN.match(path):
                yield path, int(entry["size"]), entry["last_modified"]

"""Clean-up of a table's log: entries before a checkpoint that no version of the retention needs.

delta-rs's own clean-up goes by age alone. Here stays what a writer reads at its next start: the newest commit that says
how far the table's pipeline is, also when others have committed since, and checkpoints, for longer than the retention.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import obstore

from lakehouse.anchor import METADATA_KEY
from lakehouse.lake import Lake
from lakehouse.merge.intervals import interval
from lakehouse.merge.log import DeltaLog, Snapshot, complete_checkpoints
from lakehouse.tail import commit_info

WANTED = "delta.enableExpiredLogCleanup"
RETAINED = "delta.logRetentionDuration"
_ENTRY = re.compile(r"(\d{20})\.(?:(\d{20})\.compacted\.json|json|crc|checkpoint\..*parquet|checkpoint\..*json)")


@dataclass(frozen=True)
class LogCleaned:
    """What was deleted, or would be."""

    entries: int = 0
    bytes: int = 0


def clean_log(
    lake: Lake, table: str, retention: timedelta, *, filled: bool = True, dry_run: bool = False
) -> LogCleaned:
    """Delete log entries that no version needs that was the newest at any time within the retention.

    A table's own properties may ask for more. filled: whether a pipeline fills the table, and reads there how far it
    is. Raises what lakehouse.errors says about the storage; deleting may then
    have begun, and is right.
    """
    log = DeltaLog(lake, table, lambda *_: None)
    snapshot = log.load()
    kept_for = None if snapshot is None else _retention(snapshot, retention)
    if snapshot is None or kept_for is None:
        return LogCleaned()
    cutoff = datetime.now(UTC) - kept_for
    entries = _entries(lake, table)
    first = _checkpoint_before(entries, cutoff)
    if filled and first > 0:
        first = min(first, _newest_state(lake, log, snapshot.version))
    old = [e for e in entries.values() if _last_version(e) < first and e["last_modified"] < cutoff]
    old.sort(key=lambda entry: str(entry["path"]))  # a version that is there has all later ones
    if not dry_run:
        lake.delete([entry["path"] for entry in old])
    return LogCleaned(len(old), sum(int(entry["size"]) for entry in old))


def _retention(snapshot: Snapshot, wanted: timedelta) -> timedelta | None:
    """Give for how long entries are kept; None when the table says that they are not to be deleted."""
    said = snapshot.configuration.get(RETAINED)
    kept = interval(said) if said else wanted
    if kept is None or (snapshot.configuration.get(WANTED) or "true").lower() == "false":
        return None
    return max(kept, wanted)


def _entries(lake: Lake, table: str) -> dict[str, Any]:
    """Give what the log folder holds, by name."""
    with lake.explained(f"list the log of table {table}"):
        found = obstore.list(lake.objects, f"{table}/_delta_log/").collect()
    names = ((entry["path"].rpartition("/")[2], entry) for entry in found)
    return {name: entry for name, entry in names if _ENTRY.fullmatch(name)}


def _checkpoint_before(entries: Mapping[str, Any], cutoff: datetime) -> int:
    """Give the version of the newest checkpoint of a version that was committed before a time; -1 for none."""

    def committed(version: int, parts: Sequence[str]) -> datetime:
        made: datetime = entries.get(f"{version:020}.json", entries[parts[0]])["last_modified"]
        return made

    checkpoints = complete_checkpoints(entries)
    return max((v for v, parts in checkpoints.items() if committed(v, parts) < cutoff), default=-1)


def _newest_state(lake: Lake, log: DeltaLog, newest: int) -> int:
    """Give the version of the newest commit that says how far a pipeline is, or of a RESTORE; -1 where none does."""
    for version in range(newest, -1, -1):
        commit = lake.get(log.commit_path(version))
        info = commit_info(commit) if commit else {}
        if METADATA_KEY in info or info.get("operation") == "RESTORE":
            return version
        if commit is None:
            break
    return -1


def _last_version(entry: Mapping[str, Any]) -> int:
    name = str(entry["path"]).rpartition("/")[2]
    found = _ENTRY.fullmatch(name)
    assert found is not None
    return int(found[2] or found[1])

"""What a stream's Delta log says about time: when each commit became readable, and which offsets it brought."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from deltalake import DeltaTable

Partition = tuple[str, int]  # topic, partition
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Commit:
    """One version of a table in a local lake."""

    version: int
    at: float  # seconds since the epoch: when its log entry was in place
    progress: dict[Partition, int]  # last applied offset, as far as this version says

    @classmethod
    def read(cls, path: Path) -> Commit:
        """Read one log entry; the later of its own timestamp and the file's counts."""
        at, progress = path.stat().st_mtime, {}
        for line in path.read_text(encoding="utf-8").splitlines():
            action = json.loads(line)
            if "commitInfo" in action:
                at = max(at, action["commitInfo"]["timestamp"] / 1000)
            elif "txn" in action:
                # tidegate/<pipeline>/<topic>/<partition>/<epoch>
                _, _, topic, partition, _ = action["txn"]["appId"].split("/")
                progress[topic, int(partition)] = int(action["txn"]["version"])
        return cls(int(path.stem), at, progress)


def commits(table: Path) -> list[Commit]:
    """Give the versions of a table that brought progress, oldest first; empty when there is no table yet."""
    entries = sorted(path for path in (table / "_delta_log").glob("*.json") if path.stem.isdigit())
    return [commit for commit in map(Commit.read, entries) if commit.progress]


def totals(found: Sequence[Commit]) -> list[tuple[float, int]]:
    """Give (time, offsets applied so far over all partitions, counted from 0) of each commit."""
    standing: dict[Partition, int] = {}
    points = []
    for commit in found:
        standing |= commit.progress
        points.append((commit.at, sum(last + 1 for last in standing.values())))
    return points


def latencies(table: Path, since: float = 0.0) -> npt.NDArray[np.float64]:
    """Give, for each row of a <stream>_changes table, the seconds from Kafka's timestamp to its commit.

    `since` leaves out rows that reached Kafka before (seconds since the epoch).
    """
    found = commits(table)
    rows = DeltaTable(str(table)).to_pyarrow_table(columns=["_topic", "_partition", "_offset", "_kafka_time"])
    micros = rows["_kafka_time"].cast(pa.int64()).to_numpy() / 1e6
    partitions, offsets = rows["_partition"].to_numpy(), rows["_offset"].to_numpy()
    topics = rows["_topic"].to_numpy()
    result = np.full(len(rows), np.nan)
    for topic, partition in {place for commit in found for place in commit.progress}:
        own = np.flatnonzero((partitions == partition) & (topics == topic))
        result[own] = waits(found, (topic, partition), offsets[own], micros[own])
    recent: npt.NDArray[np.float64] = result[micros >= since]
    return recent


def waits(found: Sequence[Commit], place: Partition, offsets: Longs, since: npt.NDArray[np.float64]) -> Floats:
    """Give how long rows of one partition waited for their commit, from a time each (seconds since the epoch)."""
    lasts = np.array([commit.progress[place] for commit in found if place in commit.progress])
    times = np.array([commit.at for commit in found if place in commit.progress])
    at = np.searchsorted(lasts, offsets)
    waited = np.full(len(offsets), np.nan)
    there = at < len(lasts)
    waited[there] = times[at[there]] - since[there]
    return waited

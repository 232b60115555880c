"""Parked streams: a durable record that a stream stands still, and why, written before its rows are let go.

Paused by an operator and parked for an error are the same thing with another reason.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import obstore
import orjson
from obstore.exceptions import NotFoundError

from lakehouse.lake import Lake

FOLDER = "_tidegate/parked"
PAUSED = "paused"
CACHE_SECONDS = 1.0


@dataclass(frozen=True)
class Parked:
    """Why a stream stands still, and since when (ms since the epoch)."""

    stream: str
    reason: str
    since_ms: int


class Parking:
    """The parked streams of one pipeline."""

    def __init__(self, lake: Lake, pipeline: str) -> None:
        self._lake = lake
        self._folder = f"{FOLDER}/{pipeline}"
        self._listed: tuple[float, frozenset[str]] = (float("-inf"), frozenset())

    def park(self, stream: str, reason: str = PAUSED) -> Parked:
        """Write the record; a stream that is parked already keeps its first reason."""
        parked = Parked(stream, reason, int(time.time() * 1000))
        record = orjson.dumps({"stream": stream, "reason": reason, "since_ms": parked.since_ms})
        if self.read(stream) is None:
            self._lake.put(self._path(stream), record)
        self._listed = (float("-inf"), frozenset())
        return self.read(stream) or parked

    def unpark(self, stream: str) -> bool:
        """Remove the record; False when there was none. The stream goes on when the job starts again."""
        self._listed = (float("-inf"), frozenset())
        if not self._lake.exists(self._path(stream)):
            return False
        with self._lake.explained(f"remove {self._path(stream)}"):
            obstore.delete(self._lake.objects, self._path(stream))
        return True

    def read(self, stream: str) -> Parked | None:
        """Give a stream's record, None when it is not parked."""
        record = self._lake.get(self._path(stream))
        return None if record is None else Parked(**orjson.loads(record))

    def is_parked(self, stream: str) -> bool:
        """Say whether a stream is parked, as of at most CACHE_SECONDS ago: one listing serves all streams."""
        listed_at, streams = self._listed
        if time.monotonic() - listed_at > CACHE_SECONDS:
            streams = frozenset(self._names())
            self._listed = (time.monotonic(), streams)
        return stream in streams

    def all(self) -> list[Parked]:
        """Give every parked stream, by name."""
        return [parked for name in sorted(self._names()) if (parked := self.read(name)) is not None]

    def _names(self) -> list[str]:
        with self._lake.explained("list the parked streams"):
            try:
                found = obstore.list_with_delimiter(self._lake.objects, prefix=f"{self._folder}/")["objects"]
            except (FileNotFoundError, NotFoundError):
                return []
        return [entry["path"].rpartition("/")[2].removesuffix(".json") for entry in found]

    def _path(self, stream: str) -> str:
        return f"{self._folder}/{stream}.json"

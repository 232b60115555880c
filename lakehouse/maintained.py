"""What maintenance did last, one small object a stream, so that status can tell of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import orjson

from lakehouse.lake import Lake
from lakehouse.upkeep import FOLDER

OF_THE_LAKE = "_lake"  # no stream is named so


@dataclass(frozen=True)
class TableRecord:
    """What was done to one table."""

    compacted_ms: int | None  # when files were last rewritten by maintenance
    compacted: int  # files, by the last run, as all that follows
    vacuumed: int  # files deleted
    log_entries: int  # deleted
    bytes: int  # freed
    note: str  # what was left to others
    failure: str


@dataclass(frozen=True)
class Record:
    """The last maintenance of a stream; of what all share when the stream is empty."""

    stream: str
    at_ms: int
    retention_seconds: int
    tables: Mapping[str, TableRecord]


class Maintained:
    """The records of one pipeline."""

    def __init__(self, lake: Lake, pipeline: str) -> None:
        self._lake = lake
        self._folder = f"{FOLDER}/{pipeline}/done"

    def write(self, record: Record) -> None:
        """Keep a record in place of the one before."""
        self._lake.put(self._path(record.stream), orjson.dumps(asdict(record)))

    def read(self, stream: str) -> Record | None:
        """Give a stream's record; None when it was never maintained, or another version wrote the record."""
        data = self._lake.get(self._path(stream))
        try:
            read = orjson.loads(data) if data else None
            return read and Record(**{**read, "tables": {n: TableRecord(**t) for n, t in read["tables"].items()}})
        except (TypeError, KeyError, AttributeError, ValueError):
            return None

    def _path(self, stream: str) -> str:
        return f"{self._folder}/{stream or OF_THE_LAKE}.json"

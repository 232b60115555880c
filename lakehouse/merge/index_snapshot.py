"""The key index beside its table, so that a start need not read the keys of all files again.

A snapshot is one object: magic, length and CRC-32 of the header, the header (JSON), then the arrays of the index's runs
as they are in memory. It says for which table and version it was made and which files it knows. It is a copy of what
the files hold and is never needed: one that is missing, damaged or of another table is no snapshot, and the index is
built from the table. One that is older than the table is completed by the files that it does not know.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
import tempfile
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import orjson
from obstore.exceptions import BaseError, NotFoundError

from lakehouse.errors import LakehouseError
from lakehouse.groups import Ints
from lakehouse.lake import Lake
from lakehouse.lanes import WHOLE, Lane
from lakehouse.merge.index import Entries
from lakehouse.merge.keys import Keys
from lakehouse.merge.log import DeltaLog

FOLDER = "_tidegate/index"
SUFFIX = ".idx"
FORMAT = 1  # to be raised when keys are hashed, or locations flagged, in another way
MAGIC = b"TGINDEX\x01"
ALIGNED = 64  # bytes
CHUNK = 16 * 1024 * 1024  # bytes handed to the storage at once
THREADS = 4  # checksums
TRIED = 2  # newest snapshots
_HEAD = struct.Struct("<8sII")  # magic, length and CRC-32 of the header


@dataclass(frozen=True)
class IndexState:
    """An index at one version of its table."""

    table_id: str
    version: int
    files: Mapping[str, tuple[int, int]]  # path -> number in locations, deleted rows
    next_number: int  # above every number that locations name
    runs: tuple[Entries, ...]


class IndexSnapshots:
    """Writes and reads the snapshots of one table's index, or of one lane's part of it."""

    def __init__(self, lake: Lake, table: str, keys: Sequence[str], lane: Lane = WHOLE) -> None:
        self._lake = lake
        self._suffix = SUFFIX if lane.alone else f".{lane}{SUFFIX}"
        self._table = table
        self._keys = list(keys)

    def write(self, state: IndexState) -> None:
        """Write a snapshot and remove older ones. Raises what lakehouse.errors says of the storage."""
        digest = self._digest(state.version)
        if digest is None:
            return  # the log was cleaned up meanwhile: nobody could tell any more of which table it is
        arrays = [array for run in state.runs for array in _arrays(run)]
        with ThreadPoolExecutor(THREADS) as pool:
            sums = list(pool.map(_checksum, arrays))
        header = orjson.dumps(
            {
                "format": FORMAT,
                "table": state.table_id,
                "version": state.version,
                "commit": digest,
                "keys": self._keys,
                "files": state.files,
                "next": state.next_number,
                "runs": [[len(run), run.keys.check is not None] for run in state.runs],
                "sums": sums,
            }
        )
        path = f"{self._folder}{state.version:020}-{uuid.uuid4().hex}{self._suffix}"
        with self._lake.explained(f"write {path}"):
            obstore.put(self._lake.objects, path, _pieces(header, arrays))
        self._remove_older(path)

    def read(self, table_id: str, version: int) -> IndexState | None:
        """Give the newest snapshot that holds for a table at a version; None when there is none."""
        for path in self._paths()[:TRIED]:
            try:
                state = self._read(path, table_id, version)
            except (LakehouseError, BaseError, OSError, ValueError, KeyError, TypeError, struct.error):
                continue  # damaged, or gone meanwhile
            if state is not None:
                return state
        return None

    @property
    def _folder(self) -> str:
        return f"{FOLDER}/{self._table}/"

    def _paths(self) -> list[str]:
        """Give the snapshots, newest first."""
        try:
            found = obstore.list_with_delimiter(self._lake.objects, prefix=self._folder)["objects"]
        except (BaseError, OSError):
            return []
        own = (e["path"] for e in found if _suffix(e["path"]) == self._suffix)
        return sorted(own, reverse=True)

    def _remove_older(self, path: str) -> None:
        self._lake.delete([other for other in self._paths() if other < path])

    def _digest(self, version: int) -> str | None:
        """Give what tells the commit of a version from any other."""
        commit = self._lake.get(f"{self._table}/_delta_log/{version:020}.json")
        return None if commit is None else hashlib.sha256(commit).hexdigest()

    def _read(self, path: str, table_id: str, version: int) -> IndexState | None:
        """Give a snapshot; None when it is of another table, or of a version that this table never had."""
        memory = self._mapped(path)
        magic, length, checksum = _HEAD.unpack_from(memory)
        packed = memory[_HEAD.size : _HEAD.size + length]
        if magic != MAGIC or zlib.crc32(packed) != checksum:
            raise ValueError("not a snapshot")
        header: dict[str, Any] = orjson.loads(packed)
        said = header["format"], header["table"], header["keys"]
        if said != (FORMAT, table_id, self._keys) or header["version"] > version:
            return None
        if header["commit"] != self._digest(header["version"]):
            return None
        runs = _runs(memory, _aligned(_HEAD.size + length), header["runs"], header["sums"])
        files = {name: (number, dead) for name, (number, dead) in header["files"].items()}
        return IndexState(table_id, header["version"], files, header["next"], runs)

    def _mapped(self, path: str) -> mmap.mmap:
        """Give an object's bytes without holding them in memory: they are mapped, from a copy when it is remote."""
        if not self._lake.remote:
            with (Path(self._lake.uri) / path).open("rb") as file:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with tempfile.TemporaryFile(prefix="tidegate-index-") as file:
            for piece in obstore.get(self._lake.objects, path).stream(min_chunk_size=CHUNK):
                file.write(piece)
            file.flush()
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def remove_snapshots(lake: Lake, table: str) -> None:
    """Remove every snapshot of a table's indexes. Raises what lakehouse.errors says of the storage."""
    with lake.explained(f"list the snapshots of {table}"):
        found = obstore.list_with_delimiter(lake.objects, prefix=f"{FOLDER}/{table}/")["objects"]
    lake.delete([entry["path"] for entry in found])


@dataclass(frozen=True)
class Leftovers:
    """Snapshots that nobody needs: how many were removed, and their bytes."""

    removed: int
    bytes: int


def remove_leftovers(lake: Lake, before: datetime, *, dry_run: bool = False) -> Leftovers:
    """Remove snapshots older than a time that no start would take: a newer one holds, or their table is gone.

    Raises what lakehouse.errors says of the storage.
    """
    stale = [
        entry
        for (table, _), found in _by_table(lake).items()
        for entry in _not_taken(lake, table, found)
        if entry["last_modified"] < before
    ]
    if not dry_run:
        lake.delete([entry["path"] for entry in stale])
    return Leftovers(len(stale), sum(int(entry["size"]) for entry in stale))


def _by_table(lake: Lake) -> dict[tuple[str, str], list[Any]]:
    by_table: dict[tuple[str, str], list[Any]] = {}
    with lake.explained("list the snapshots of indexes"):
        for entries in obstore.list(lake.objects, f"{FOLDER}/"):
            for entry in entries:
                table = entry["path"].rpartition("/")[0].removeprefix(f"{FOLDER}/")
                by_table.setdefault((table, _suffix(entry["path"])), []).append(entry)
    return by_table


def _not_taken(lake: Lake, table: str, found: Sequence[Any]) -> list[Any]:
    """Give the snapshots of a table but the newest that was made of the table as it is now."""
    now = DeltaLog(lake, table, lambda *_: None).load()
    newest_first = sorted(found, key=lambda entry: str(entry["path"]), reverse=True)
    taken = now and next((e for e in newest_first if _is_of(lake, e["path"], now.metadata["id"], now.version)), None)
    return [entry for entry in newest_first if entry is not taken]


def _is_of(lake: Lake, path: str, table_id: str, version: int) -> bool:
    with lake.explained(f"read {path}"):
        try:
            _, length, _ = _HEAD.unpack(bytes(obstore.get_range(lake.objects, path, start=0, length=_HEAD.size)))
            header = orjson.loads(bytes(obstore.get_range(lake.objects, path, start=_HEAD.size, length=length)))
        except (FileNotFoundError, NotFoundError, ValueError, struct.error):
            return False  # gone meanwhile, or damaged
    return bool(header.get("table") == table_id and header.get("version", version + 1) <= version)


def _suffix(path: str) -> str:
    """Give what tells the snapshots of one lane from another's."""
    name = path.rpartition("/")[2]
    return name[name.find(".") :]


def _arrays(run: Entries) -> list[Ints]:
    check = [] if run.keys.check is None else [run.keys.check]
    return [run.keys.low, *check, run.major, run.minor, run.location]


def _checksum(array: Ints) -> int:
    return zlib.crc32(_bytes(array))


def _bytes(array: Ints) -> memoryview:
    return np.ascontiguousarray(array, "<i8").view(np.uint8).data


def _aligned(position: int) -> int:
    return -(-position // ALIGNED) * ALIGNED


def _pieces(header: bytes, arrays: Sequence[Ints]) -> Iterator[bytes | memoryview]:
    head = _HEAD.pack(MAGIC, len(header), zlib.crc32(header)) + header
    yield head + bytes(_aligned(len(head)) - len(head))
    for array in arrays:
        data = _bytes(array)
        for start in range(0, len(data), CHUNK):
            yield data[start : start + CHUNK]


def _runs(
    memory: mmap.mmap, start: int, shapes: Sequence[tuple[int, bool]], sums: Sequence[int]
) -> tuple[Entries, ...]:
    """Give the runs as views of the mapped bytes. Raises ValueError when they are not what was written."""
    if len(memory) != start + sum(rows * (5 if hashed else 4) * 8 for rows, hashed in shapes):
        raise ValueError("another length than written")
    runs = []
    for rows, hashed in shapes:
        parts = [np.frombuffer(memory, "<i8", rows, start + n * rows * 8) for n in range(5 if hashed else 4)]
        start += sum(part.nbytes for part in parts)
        low, *check, major, minor, location = parts
        runs.append(Entries(Keys(low, check[0] if check else None), major, minor, location))
    with ThreadPoolExecutor(THREADS) as pool:
        if list(pool.map(_checksum, [array for run in runs for array in _arrays(run)])) != list(sums):
            raise ValueError("wrong checksum")
    return tuple(runs)

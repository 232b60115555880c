"""Rows of data files on local disk as Arrow, memory-mapped: single rows of many files are read without decoding files.

A cache under a budget, shared by the processes of one user on one machine. Losing it costs time, never an answer:
data files never change, and each is known by its table's id and its path.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import uuid
from collections import OrderedDict
from pathlib import Path
from threading import Lock

import pyarrow as pa

VARIABLE = "TIDEGATE_ROW_CACHE_BYTES"
BUDGET = 8 * 2**30  # bytes, where the variable does not say otherwise; 0 switches the cache off
FREE_SHARE = 0.25  # of what is free on the disk that may be taken at most
OPEN = 1_024  # files kept mapped


class RowCache:
    """Gives the rows of data files that were put before; least recently used files go first."""

    def __init__(self, folder: Path | None = None, budget: int | None = None) -> None:
        self.folder = folder or Path(tempfile.gettempdir()) / f"tidegate-rows-{os.getuid()}"
        self._budget = int(os.environ.get(VARIABLE, BUDGET)) if budget is None else budget
        self._mapped: OrderedDict[str, pa.Table] = OrderedDict()
        self._lock = Lock()

    def get(self, table: str, path: str) -> pa.Table | None:
        """Give all rows of a data file of the table with this id, in their order; None when they are not held."""
        name = _name(table, path)
        with self._lock:
            held = self._mapped.get(name)
            if held is not None:
                self._mapped.move_to_end(name)
                return held
        try:
            with pa.memory_map(str(self.folder / name)) as source:
                held = pa.ipc.open_file(source).read_all()
            os.utime(self.folder / name)
        except (OSError, pa.ArrowInvalid):
            return None
        with self._lock:
            self._mapped[name] = held
            while len(self._mapped) > OPEN:
                self._mapped.popitem(last=False)
        return held

    def put(self, table: str, path: str, rows: pa.Table) -> None:
        """Keep the rows of a data file; what cannot be kept is not."""
        if rows.nbytes > self._budget:
            return
        own = self.folder / f".{uuid.uuid4().hex}"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(rows.nbytes)
            with pa.OSFile(str(own), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
                writer.write_table(rows.combine_chunks())
            own.replace(self.folder / _name(table, path))
        except (OSError, pa.ArrowException):
            with contextlib.suppress(OSError):
                own.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Remove the files that were not used for longest until the budget holds so many bytes more."""
        kept = sorted((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in os.scandir(self.folder))
        taken = sum(length for _, length, _ in kept)
        free = shutil.disk_usage(self.folder).free
        allowed = min(self._budget, taken + int(free * FREE_SHARE))
        for _, length, name in kept:
            if taken + size <= allowed:
                return
            with contextlib.suppress(OSError):
                Path(name).unlink()
            taken -= length


def _name(table: str, path: str) -> str:
    return hashlib.sha256(f"{table}/{path}".encode()).hexdigest()[:40]

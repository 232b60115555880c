"""Row groups of data files on local disk as Arrow, memory-mapped: single rows are read without decoding files again.

A cache under a budget, shared by the processes of one user on one machine. Losing it costs time, never an answer:
data files never change, and each is known by its table and its path. What was used a short while ago is not given
up for something new: else tables that are larger than the budget would push each other out all the time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
import uuid
from collections import OrderedDict
from pathlib import Path
from threading import Lock

import pyarrow as pa

VARIABLE = "TIDEGATE_ROW_CACHE_BYTES"
BUDGET = 8 * 2**30  # bytes, where the variable does not say otherwise; 0 switches the cache off
FREE_SHARE = 0.25  # of what is free on the disk that may be taken at most
OPEN = 4_096  # pieces kept mapped
IN_USE_SECONDS = 300.0  # how long a file stays after it was last used, whatever else wants its room
NOTED_SECONDS = 60.0  # how often its use is noted on disk


class RowCache:
    """Gives the pieces of data files that were put before; least recently used ones go first."""

    def __init__(
        self, folder: Path | None = None, budget: int | None = None, *, in_use_seconds: float = IN_USE_SECONDS
    ) -> None:
        self.folder = folder or Path(tempfile.gettempdir()) / f"tidegate-rows-{os.getuid()}"
        self._budget = int(os.environ.get(VARIABLE, BUDGET)) if budget is None else budget
        self._in_use_seconds = in_use_seconds
        self._mapped: OrderedDict[str, pa.Table] = OrderedDict()
        self._noted: dict[str, float] = {}  # name -> when its use was last noted (monotonic seconds)
        self._lock = Lock()

    def get(self, table: str, path: str, piece: int) -> pa.Table | None:
        """Give the rows of one piece (row group) of a table's data file, in order; None when they are not held."""
        name = _name(table, path, piece)
        with self._lock:
            held = self._mapped.get(name)
            if held is not None:
                self._mapped.move_to_end(name)
                self._note(name)
                return held
        try:
            with pa.memory_map(str(self.folder / name)) as source:
                held = pa.ipc.open_file(source).read_all()
        except (OSError, pa.ArrowInvalid):
            return None
        with self._lock:
            self._note(name)
            self._mapped[name] = held
            while len(self._mapped) > OPEN:
                gone, _ = self._mapped.popitem(last=False)
                self._noted.pop(gone, None)
        return held

    def _note(self, name: str) -> None:
        """Say on disk that a file was used, now and then."""
        now = time.monotonic()
        if now - self._noted.get(name, -NOTED_SECONDS) >= NOTED_SECONDS:
            self._noted[name] = now
            with contextlib.suppress(OSError):
                os.utime(self.folder / name)

    def put(self, table: str, path: str, piece: int, rows: pa.Table) -> bool:
        """Keep the rows of one piece of a data file; what cannot be kept is not. Says whether they were."""
        own = self.folder / f".{uuid.uuid4().hex}"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._has_room(rows.nbytes):
                return False
            with pa.OSFile(str(own), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
                writer.write_table(rows.combine_chunks())
            own.replace(self.folder / _name(table, path, piece))
        except (OSError, pa.ArrowException):
            with contextlib.suppress(OSError):
                own.unlink(missing_ok=True)
            return False
        return True

    def _has_room(self, size: int) -> bool:
        """Remove files that are not in use, those first that were not used for longest, until there is enough room."""
        kept = sorted((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in os.scandir(self.folder))
        taken = sum(length for _, length, _ in kept)
        free = shutil.disk_usage(self.folder).free
        allowed = min(self._budget, taken + int(free * FREE_SHARE))
        unused = [(length, name) for used, length, name in kept if used < time.time() - self._in_use_seconds]
        if taken + size - sum(length for length, _ in unused) > allowed:
            return False
        for length, name in unused:
            if taken + size <= allowed:
                break
            with contextlib.suppress(OSError):
                Path(name).unlink()
            taken -= length
        return True


def _name(table: str, path: str, piece: int) -> str:
    return hashlib.sha256(f"{table}/{path}#{piece}".encode()).hexdigest()[:40]

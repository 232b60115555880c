"""Where the arrays of key indexes stay: in memory under a budget of the process, beyond it in mapped files.

A mapped array is read as any other. Its pages belong to the page cache, which gives them back when memory is short; the
file has no name and is gone with the array. The budget is what the arrays of all indexes of a process may hold at rest.
An array of which four would not fit into what is left is mapped, so that what is left serves the small ones: they are
merged all the time, the large ones seldom.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from pathlib import Path
from threading import RLock

import numpy as np

from lakehouse.groups import Ints

VARIABLE = "TIDEGATE_INDEX_BYTES"
BUDGET = 2**30  # bytes of a process, where the variable does not say otherwise; 0 maps all arrays but small ones
SMALL = 2**20  # bytes, below which an array is neither counted nor mapped
FITS = 4  # such arrays must fit into what is left of the budget


class IndexMemory:
    """Gives arrays back as they are while there is room, and mapped when there is not. Safe for several threads."""

    def __init__(self, budget: int | None = None, folder: Path | None = None, *, small: int = SMALL) -> None:
        self.held = 0  # bytes of the arrays that were left in memory and are still in use
        self._budget = int(os.environ.get(VARIABLE, BUDGET)) if budget is None else budget
        self._folder = folder
        self._small = small
        self._lock = RLock()  # an array may end, and be counted off, while another is counted

    def placed(self, array: Ints) -> Ints:
        """Give an array that owns its values, or the same values mapped; it may not be written to any more."""
        if array.nbytes < self._small:
            return array
        with self._lock:
            room = array.nbytes * FITS <= self._budget - self.held
            if room:
                self.held += array.nbytes
        if room:
            weakref.finalize(array, self._ended, array.nbytes)
            return array
        return self._mapped(array)

    def _ended(self, size: int) -> None:
        with self._lock:
            self.held -= size

    def _mapped(self, array: Ints) -> Ints:
        try:
            with tempfile.TemporaryFile(prefix="tidegate-index-", dir=self._folder) as file:
                file.write(np.ascontiguousarray(array).view(np.uint8).data)
                file.flush()
                memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError:
            return array  # a full disk costs memory, and stops nothing
        return np.frombuffer(memory, np.int64)


SHARED = IndexMemory()

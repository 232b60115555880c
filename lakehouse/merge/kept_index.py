"""When a table's key index is written beside it, and how it is taken up again."""

from __future__ import annotations

import time
from collections.abc import Collection
from threading import Thread

from lakehouse.merge.index import KeyIndex
from lakehouse.merge.index_snapshot import IndexSnapshots, IndexState
from lakehouse.merge.merge_table import MergeTable

ENTRIES = 1_000_000  # put since the last snapshot, from which on the next is worth it
SHARE = 0.25  # and of all entries
AGAIN = 60.0  # seconds after a failure


class KeptIndex:
    """Keeps the index of one table. Its arrays never change once they stand in a run: they are written as they are,
    by a thread of its own, while the index goes on."""

    def __init__(self, table: MergeTable, index: KeyIndex, snapshots: IndexSnapshots) -> None:
        self.unwritten = 0  # entries put since the last snapshot
        self._table = table
        self._index = index
        self._snapshots = snapshots
        self._thread: Thread | None = None
        self._failure: Exception | None = None
        self._not_before = 0.0

    def restore(self) -> set[int]:
        """Fill an empty index from a snapshot; give the numbers of the live files whose rows it holds."""
        state = self._snapshots.read(self._table.table_id, self._table.version)
        if state is None:
            return set()
        self._table.renumber({path: number for path, (number, _) in state.files.items()}, state.next_number)
        self._index.restore(state.runs)
        # Deleted rows may lack in a snapshot: a file in which fewer are deleted now is read again.
        files = self._table.files().values()
        return {state.files[f.path][0] for f in files if f.path in state.files and f.dead >= state.files[f.path][1]}

    def write_if_due(self, known: Collection[int]) -> None:
        """Begin to write a snapshot when it is worth it; known: numbers of the files whose rows are in the index.

        Raises what the writing of the one before met.
        """
        if self._thread and self._thread.is_alive():
            return
        if self._failure:
            failure, self._failure = self._failure, None
            raise failure
        if self.unwritten <= max(ENTRIES, SHARE * len(self._index)) or time.monotonic() < self._not_before:
            return
        files = {f.path: (n, f.dead) for n, f in self._table.files().items() if n in known}
        runs = tuple(self._index.runs)
        state = IndexState(self._table.table_id, self._table.version, files, self._table.next_number, runs)
        self._thread = Thread(target=self._write, args=(state, self.unwritten), daemon=True, name="index snapshot")
        self.unwritten = 0
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is being written."""
        if self._thread:
            self._thread.join()

    def _write(self, state: IndexState, entries: int) -> None:
        try:
            self._snapshots.write(state)
        except Exception as error:  # noqa: BLE001 (told by the next call)
            self._failure = error
            self._not_before = time.monotonic() + AGAIN
            self.unwritten += entries

"""Checkpoints of tables that are committed to by us: delta-rs makes its own only after its own commits."""

from __future__ import annotations

from deltalake import DeltaTable

from lakehouse.errors import LakehouseError
from lakehouse.lake import Lake
from lakehouse.lanes import Lane

EVERY = 64  # commits
AGAIN = 8  # commits after one that failed


def make_checkpoint(lake: Lake, table: str) -> None:
    """Make a checkpoint of a table's newest version. Raises what lakehouse.errors says of the storage."""
    with lake.explained(f"make a checkpoint of table {table}"):
        DeltaTable(lake.table_uri(table), storage_options=dict(lake.storage_options)).create_checkpoint()


class Checkpoints:
    """Has one made now and then; lanes of one stream take turns. Failing is not an error: the next one will do."""

    def __init__(self, lake: Lake, table: str, lane: Lane) -> None:
        self.failures = 0
        self._lake = lake
        self._table = table
        self._lane = lane
        self._due = 0

    def begin(self, newest: int) -> None:
        """Count from the newest checkpoint's version; -1 when there is none."""
        self._due = max(newest, 0) + EVERY * (self._lane.number + 1)

    def committed(self, version: int) -> None:
        """Make one when it is due, after a commit of a version."""
        if version < self._due:
            return
        try:
            make_checkpoint(self._lake, self._table)
            self._due = version + EVERY * self._lane.of
        except LakehouseError:
            self.failures += 1
            self._due = version + AGAIN

"""What the index of a table of aggregates says of its rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from lakehouse.aggregates.columns import BOUNDS
from lakehouse.groups import Ints
from lakehouse.merge.index import Entries
from lakehouse.merge.indexed import CLOSED
from lakehouse.merge.keys import Keys, keys_of


class AggregateEntries:
    """A row's window and group as its key (of sessions the group alone), the window's bounds as its position.

    CLOSED marks rows whose window the watermark has passed.
    """

    def __init__(self, group_by: Sequence[str], *, session: bool) -> None:
        self._group_by = list(group_by)
        self._session = session
        self.columns = [*BOUNDS, *group_by, "_complete"]

    @property
    def key(self) -> list[str]:
        """The columns that make the key."""
        return [*([] if self._session else BOUNDS), *self._group_by]

    def keys(self, rows: pa.Table) -> Keys:
        """Give the keys of rows, or of parts (whose bounds are numbers)."""
        bounds = [] if self._session else [rows[name].cast(pa.int64()) for name in BOUNDS]
        groups = [pa.chunked_array(column) for name in self._group_by for column in _told(rows[name])]
        return keys_of([*bounds, *groups] or [pa.array(np.zeros(len(rows), np.int64))])

    def entries(self, rows: pa.Table, locations: Ints) -> Entries:
        """Give the rows' entries."""
        start, end = (rows[name].cast(pa.int64()).to_numpy() for name in BOUNDS)
        closed = np.where(rows["_complete"].to_numpy(), locations | CLOSED, locations).astype(np.int64)
        return Entries(self.keys(rows), end, start, closed)


def _told(column: pa.ChunkedArray) -> list[list[pa.Array]]:
    """Give a column without nulls, and where they were: null is a group like any other."""
    chunks = [chunk.fill_null(_filler(column.type)) for chunk in column.chunks] or [pa.array([], column.type)]
    nulls = [chunk.is_null().cast(pa.int64()) for chunk in column.chunks] or [pa.array([], pa.int64())]
    return [chunks, nulls]


def _filler(kind: pa.DataType) -> pa.Scalar:
    """Give some value of a type."""
    if pa.types.is_string(kind):
        return pa.scalar("", kind)
    return pa.array([0], pa.int32() if pa.types.is_date32(kind) else pa.int64()).cast(kind)[0]

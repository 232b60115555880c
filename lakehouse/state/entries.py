"""What the indexes of current, history and the memory say of stored rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from lakehouse.groups import Ints
from lakehouse.merge.index import Entries
from lakehouse.merge.indexed import CLOSED, REMEMBERS
from lakehouse.merge.keys import Keys, keys_of
from lakehouse.state.memo import remembers


class StateEntries:
    """A row's key, its position, whether it has a memo, and whether another version has followed it."""

    def __init__(self, keys: Sequence[str], *, versions: bool = False) -> None:
        self._keys = list(keys)
        closed = ["_is_current"] if versions else []
        self.columns = [*keys, "_order_major", "_order_minor", "_pending", "_memo", *closed]

    def keys(self, rows: pa.Table) -> Keys:
        """Give the rows' keys."""
        return keys_of([rows[name] for name in self._keys])

    def entries(self, rows: pa.Table, locations: Ints) -> Entries:
        """Give the rows' entries."""
        marked = np.where(remembers(rows["_memo"], rows["_pending"]), locations | REMEMBERS, locations)
        if "_is_current" in self.columns:
            marked = np.where(rows["_is_current"].to_numpy(), marked, marked | CLOSED)
        major, minor = rows["_order_major"].to_numpy(), rows["_order_minor"].to_numpy()
        return Entries(self.keys(rows), major, minor, marked.astype(np.int64))

"""What partitions had brought before records that are read again: the highest positions, from the table of changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from lakehouse.groups import NONE, Ints, Partition, group_rows, int64s
from lakehouse.highest import COLUMNS, HighestBefore
from lakehouse.lake import Lake
from lakehouse.places import of_partition
from lakehouse.table import StreamTable


class Before:
    """Answers for rows in ascending offsets, call after call; remembers how far it has read each partition."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._known: dict[tuple[Partition, int], tuple[int, tuple[int, int]]] = {}  # up to an offset, the highest

    def highest(
        self, rows: pa.Table, topics: Sequence[str], epochs: Mapping[str, int], changes: StreamTable | None
    ) -> Ints:
        """Give per row the highest position that its partition brought before it (n x 2), NONE where none."""
        found = np.full((len(rows), 2), NONE, np.int64)
        groups = group_rows(rows, topics)
        order = np.arange(len(rows)) if groups.order is None else groups.order
        for partition, own in groups:
            where = order[own]
            found[where] = self._of(partition, epochs.get(partition[0], 0), rows.take(pa.array(where)), changes)
        return found

    def _of(self, partition: Partition, epoch: int, rows: pa.Table, changes: StreamTable | None) -> Ints:
        offsets = int64s(rows["_offset"])
        upto, before = self._known.get((partition, epoch), (-1, (NONE, NONE)))
        if upto >= offsets[0]:
            upto, before = -1, (NONE, NONE)
        asked = HighestBefore(offsets, before).take([rows.select(COLUMNS)])
        if changes is not None:
            within = (ds.field("_offset") > upto) & (ds.field("_offset") < int(offsets[-1]))
            whole = of_partition(partition) & (ds.field("_epoch") == epoch) & within
            with self._lake.explained(f"read table {changes.name}"):
                parts = changes.delta.to_pyarrow_dataset().to_batches(columns=list(COLUMNS), filter=whole)
                asked.take(pa.Table.from_batches([part]) for part in parts if len(part))
        below = asked.below
        self._known[partition, epoch] = int(offsets[-1]), (int(below[-1, 0]), int(below[-1, 1]))
        return below[:-1]

"""The rows of a batch by partition, each partition's in offset order: the order in which verdicts are given. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Partition = tuple[str, int]  # topic, partition
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

# Stands for null in int64 arrays: below every event time and position, and far enough from the edge to subtract from.
NONE = -(1 << 62)


@dataclass(frozen=True)
class Groups:
    """Which rows are whose: `order` sorts the rows by partition and offset (None: they stand so already)."""

    keys: tuple[Partition, ...]
    bounds: tuple[int, ...]  # len(keys) + 1 positions in the ordered rows
    order: npt.NDArray[np.intp] | None

    def __iter__(self) -> Iterator[tuple[Partition, slice]]:
        """Give each partition with its slice of the ordered rows."""
        for index, key in enumerate(self.keys):
            yield key, slice(self.bounds[index], self.bounds[index + 1])

    def ordered(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Give values of the batch's rows in order."""
        return values if self.order is None else values[self.order]

    def scattered(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Give values that stand in order as the batch's rows stand."""
        if self.order is None:
            return values
        scattered = np.empty_like(values)
        scattered[self.order] = values
        return scattered


def group_rows(rows: pa.Table, topics: Sequence[str]) -> Groups:
    """Give the groups of a table with _topic, _partition and _offset; topics names every topic that may occur."""
    if not len(rows):
        return Groups((), (0,), None)
    codes = rows["_partition"].to_numpy().astype(np.int64)
    width = int(codes.max()) + 1
    if len(topics) > 1:  # hashing every topic name is the dear part: a stream of one topic goes without
        which = pc.index_in(rows["_topic"], value_set=pa.array(topics, pa.string()))
        codes += which.to_numpy().astype(np.int64) * width
    offsets = rows["_offset"].to_numpy()
    order = None if _stands(codes, offsets) else _order(codes, offsets)
    ordered = codes if order is None else codes[order]
    starts = [0, *(np.flatnonzero(np.diff(ordered)) + 1).tolist()]
    keys = tuple((topics[int(ordered[s]) // width], int(ordered[s]) % width) for s in starts)
    return Groups(keys, (*starts, len(ordered)), order)


def _stands(codes: Ints, offsets: Ints) -> bool:
    same, rising = codes[1:] == codes[:-1], offsets[1:] > offsets[:-1]
    return bool(np.all((same & rising) | (codes[1:] > codes[:-1])))


def _order(codes: Ints, offsets: Ints) -> npt.NDArray[np.intp]:
    # Sections come in offset order as a rule: then a stable sort by partition is enough (radix sort on 16 bits).
    narrow = codes.astype(np.uint16) if codes.max() < 1 << 16 else codes
    order = np.argsort(narrow, kind="stable")
    return order if _stands(codes[order], offsets[order]) else np.lexsort((offsets, codes))


def int64s(column: pa.ChunkedArray) -> Ints:
    """Give an integer column as int64, NONE where null."""
    if column.null_count:
        column = pc.fill_null(column, NONE)
    numbers: Ints = column.to_numpy()
    return numbers

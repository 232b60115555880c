"""The highest position that a partition had brought before certain offsets, from the table of changes. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.groups import NONE, Flags, Ints, int64s
from lakehouse.resent import compose_minor

COLUMNS = ("_offset", "_position_major", "_position_minor", "_previous_key", "_snapshot")


def judged(rows: pa.Table) -> Flags:
    """Mark the rows whose position raises their partition's: neither a snapshot's, nor read beside the log."""
    beside = pc.fill_null(pc.equal(rows["_snapshot"], "incremental"), False)
    marks: Flags = pc.and_(pc.is_valid(rows["_position_major"]), pc.invert(beside)).to_numpy()
    return marks


def positions(rows: pa.Table) -> Ints:
    """Give the rows' positions (n x 2) in a form in which the halves of a key change differ."""
    minor = compose_minor(int64s(rows["_position_minor"]), pc.is_valid(rows["_previous_key"]).to_numpy())
    return np.stack([int64s(rows["_position_major"]), minor], axis=1)


class HighestBefore:
    """Takes the rows (COLUMNS) of one partition in any order; knows the highest position below each asked offset."""

    def __init__(self, offsets: Ints, before: tuple[int, int] = (NONE, NONE)) -> None:
        """Ask for ascending offsets; before: the highest position of what is not going to be taken in."""
        self._offsets = offsets
        self._best = np.full((len(offsets) + 1, 2), NONE, np.int64)  # of the rows from one asked offset to the next
        self._best[0] = before

    def take(self, parts: Iterable[pa.Table]) -> HighestBefore:
        """Take in rows; gives itself."""
        for rows in parts:
            rows = rows.filter(pa.array(judged(rows)))  # noqa: PLW2901
            if len(rows):
                self._raise(np.searchsorted(self._offsets, int64s(rows["_offset"]), side="right"), positions(rows))
        return self

    def _raise(self, place: Ints, position: Ints) -> None:
        everything = np.concatenate([self._best, position])
        where = np.concatenate([np.arange(len(self._best)), place])
        order = np.lexsort((everything[:, 1], everything[:, 0], where))
        last = np.append(where[order][1:] != where[order][:-1], True)
        self._best = everything[order[last]]

    @property
    def below(self) -> Ints:
        """Give per asked offset the highest position below it, and last that of all rows (n + 1 x 2); NONE: none."""
        order = np.lexsort((self._best[:, 1], self._best[:, 0]))
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        found: Ints = self._best[order][np.maximum.accumulate(ranks)]
        return found

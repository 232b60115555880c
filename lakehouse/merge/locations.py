"""Where a row lies, as one int64: the number of its file in the high bits, its position in the file in the low ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from lakehouse.groups import Ints

POSITION_BITS = 32
POSITION = (1 << POSITION_BITS) - 1


def by_file(locations: Ints) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """Give each file number that locations name, ascending, and which of them do, in their order."""
    if not len(locations):
        return
    numbers = locations >> POSITION_BITS
    order = np.argsort(numbers, kind="stable")
    bounds = np.flatnonzero(np.diff(numbers[order], prepend=-2)).tolist()
    for start, end in zip(bounds, [*bounds[1:], len(order)], strict=True):
        yield int(numbers[order[start]]), order[start:end]

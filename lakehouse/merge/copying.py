"""Copy-on-write: files that hold rows to be removed are written again without them, for readers that know no vectors.

The rows that stay are kept apart from those of the commit: rows that change often gather in the newest files, so that
the next commit leaves most of the others alone. Where all files are hit (keys at random), they are merged on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from lakehouse.groups import Ints
from lakehouse.lake import Lake
from lakehouse.merge.actions import removed
from lakehouse.merge.data_files import Layout, Written, write_files
from lakehouse.merge.live import POSITION_BITS, LiveFiles
from lakehouse.merge.log import Action

TARGET_BYTES = 96 * 1024 * 1024  # of a file's rows in memory: about 32 MB as Parquet
SLICE_BYTES = 32 * 1024 * 1024  # of files, as Parquet, that are in memory at once
SLICES = 2  # at once


def copied(
    lake: Lake, table: str, live: LiveFiles, remove: Ints, layout: Layout
) -> tuple[list[Action], list[tuple[Written, Ints]]]:
    """Write the rows that stay of the files that hold rows to remove.

    Gives the actions that take the old files out of the table, and the new files with where their rows were. Files
    that are not live and rows that are deleted already are left alone. Raises what the storage raises.
    """
    staying = {}
    for number, dead in live.deleting(remove):
        positions = np.delete(np.arange(live.row_count(number), dtype=np.int64), np.asarray(dead.to_array(), np.int64))
        staying[number] = (number << POSITION_BITS) + positions
    actions = [removed(live.files[number]) for number in staying]
    smaller = replace(layout, target=layout.target or TARGET_BYTES)

    def write(numbers: list[int]) -> list[tuple[Written, Ints]]:
        old = np.concatenate([staying[number] for number in numbers])
        return [(file, old[file.taken]) for file in write_files(lake, table, live.rows(old, layout.columns), smaller)]

    with ThreadPoolExecutor(SLICES) as pool:
        made = pool.map(write, slices(live, [number for number, rows in staying.items() if len(rows)]))
        return actions, [file for files in made for file in files]


def slices(live: LiveFiles, numbers: Iterable[int]) -> Iterator[list[int]]:
    """Give the numbers of live files in lists of bounded bytes, those of one partition together."""
    taken, size = list[int](), 0
    for number in sorted(numbers, key=lambda n: (sorted((k, v or "") for k, v in _values(live, n)), n)):
        if taken and size + live.files[number].size > SLICE_BYTES:
            yield taken
            taken, size = [], 0
        taken.append(number)
        size += live.files[number].size
    if taken:
        yield taken


def _values(live: LiveFiles, number: int) -> Iterable[tuple[str, str | None]]:
    return live.files[number].partition_values.items()

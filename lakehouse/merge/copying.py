"""Copy-on-write: files that hold rows to be removed are written again without them, for readers that know no vectors.

The rows that stay are kept apart from those of the commit: rows that change often gather in the newest files, so that
the next commit leaves most of the others alone. Where all files are hit (keys at random), they are merged on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from lakehouse.groups import Ints
from lakehouse.lake import Lake
from lakehouse.merge.actions import removed
from lakehouse.merge.data_files import Layout, Written, write_files
from lakehouse.merge.live import LiveFiles, positions_left, rows_left
from lakehouse.merge.locations import POSITION_BITS
from lakehouse.merge.log import Action, DataFile

TARGET_BYTES = 96 * 1024 * 1024  # of a file's rows in memory: about 32 MB as Parquet
SLICE_BYTES = 32 * 1024 * 1024  # of files, as Parquet, that are in memory at once
SLICES = 2  # at once


@dataclass(frozen=True)
class Copied:
    """What was written again: what takes the old files out, the new files, and where each one's rows were."""

    removes: list[Action]
    files: list[tuple[Written, Ints]]


def copied(lake: Lake, table: str, live: LiveFiles, remove: Ints, layout: Layout) -> Copied:
    """Write the rows that stay of the files that hold rows to remove.

    Files that are not live and rows that are deleted already are left alone. Raises what the storage raises.
    """
    dead = dict(live.deleting(remove))
    smaller = replace(layout, target=layout.target or TARGET_BYTES)

    def write(numbers: list[int]) -> list[tuple[Written, Ints]]:
        stay = {number: positions_left(live.row_count(number), dead[number]) for number in numbers}
        rows = pa.concat_tables([rows_left(live.whole(n, layout.columns), dead[n]) for n in numbers])
        old = np.concatenate([(number << POSITION_BITS) + positions for number, positions in stay.items()])
        return [(file, old[file.taken]) for file in write_files(lake, table, rows, smaller)]

    left = [number for number, rows in dead.items() if len(rows) < live.row_count(number)]
    with ThreadPoolExecutor(SLICES) as pool:
        made = [file for files in pool.map(write, slices(live.files, left)) for file in files]
    return Copied([removed(live.files[number]) for number in dead], made)


def slices(files: Mapping[int, DataFile], numbers: Iterable[int], size: int = SLICE_BYTES) -> Iterator[list[int]]:
    """Give the numbers of files in lists of about so many bytes, those of one partition together."""
    taken, held = list[int](), 0
    for number in sorted(numbers, key=lambda n: (sorted((k, v or "") for k, v in _values(files[n])), n)):
        if taken and held + files[number].size > size:
            yield taken
            taken, held = [], 0
        taken.append(number)
        held += files[number].size
    if taken:
        yield taken


def _values(file: DataFile) -> Iterable[tuple[str, str | None]]:
    return file.partition_values.items()

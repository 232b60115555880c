"""Data files of lanes: each says in its tags which lane all its rows are of, so that others need not read it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from lakehouse.groups import Ints
from lakehouse.lake import Lake
from lakehouse.lanes import TAG, Lane, lane_numbers
from lakehouse.merge.data_files import Layout, Written, write_files
from lakehouse.merge.keys import keys_of
from lakehouse.merge.log import DataFile


def tagged(written: Sequence[Written], lane: Lane) -> list[Written]:
    """Give files with the lane that all their rows are of in their add actions; as they are where it is alone."""
    for file in () if lane.alone else written:
        file.add["tags"] = {**(file.add.get("tags") or {}), TAG: str(lane)}
    return list(written)


def claimed_by(file: DataFile, lane: Lane) -> bool:
    """Say whether a file's upkeep is a lane's: it wrote it, or the file is one of those that no lane claims."""
    if file.lane is not None and file.lane.of == lane.of:
        return file.lane == lane
    return zlib.crc32(file.path.encode()) % lane.of == lane.number


def write_by_lane(
    lake: Lake, table: str, rows: pa.Table, layout: Layout, keys: Sequence[str], lanes: int
) -> tuple[Ints, list[Written]]:
    """Write rows again, each lane's in files of its own; gives in which order they were written, and the files."""
    numbers = lane_numbers(keys_of([rows[name] for name in keys]), lanes)
    order = np.argsort(numbers, kind="stable")
    made: list[Written] = []
    start = 0
    for number in np.unique(numbers).tolist():
        own = order[numbers[order] == number]
        parts = write_files(lake, table, rows.take(pa.array(own)), layout, data_change=False)
        made += [replace(part, taken=part.taken + start) for part in tagged(parts, Lane(number, lanes))]
        start += len(own)
    return order, made

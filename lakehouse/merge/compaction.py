"""Compaction inside the writer, between its batches: files with many deleted rows, and small ones, become better ones.

A file is small when it has few bytes and its rows take little memory: rows that compress well fill a file that has few
bytes, and to write them again would give the same file.

Anyone else's compaction loses every race against a busy writer; the writer's own does not have to race.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lakehouse.errors import LakehouseError
from lakehouse.groups import Ints
from lakehouse.merge.log import DataFile
from lakehouse.merge.merge_table import MergeTable
from lakehouse.table import Contested

DEAD_SHARE = 0.4  # of a file's rows, from which on it is rewritten
SMALL_BYTES = 16 * 1024 * 1024  # a file below is small
SMALL_COUNT = 8  # small files in one partition, from which on they are merged
SLICE_BYTES = 64 * 1024 * 1024  # of live data in one commit, as Parquet
SLICE_ROWS = 2_000_000  # live ones in one commit: all are in memory at once
SLICE_FILES = 64
PRESSING_DEAD = 0.35  # of all rows
PRESSING_SMALL = 64  # files


@dataclass(frozen=True)
class Compacted:
    """What was rewritten: where each live row was, and where it is now."""

    old: Ints
    new: Ints
    files: int  # rewritten
    commits: int


@dataclass(frozen=True)
class _Candidate:
    number: int
    live_bytes: int
    live_rows: int
    dead_share: float
    small: bool


def compact(table: MergeTable, budget: float) -> Compacted:
    """Rewrite files of an open table, the worst first; no further slice is begun after budget (seconds).

    Each slice is a commit of its own that changes no data. Raises Contested when somebody else committed, and
    LakehouseError when the storage refuses, but only from the first slice: a later one ends it with what was done.
    """
    ends = time.monotonic() + budget
    moved: list[tuple[Ints, Ints]] = []
    files = 0
    for numbers in slices(table):
        if time.monotonic() >= ends:
            break
        try:
            moved.append(table.rewrite(numbers))
        except (Contested, LakehouseError):
            if not moved:
                raise
            break  # where the rows of earlier slices are must not be lost; what failed will be said by the next commit
        files += len(numbers)
    none = np.empty(0, np.int64)
    old, new = (np.concatenate([none, *arrays]) for arrays in (zip(*moved, strict=True) if moved else ((), ())))
    return Compacted(old, new, files, len(moved))


def is_small(file: DataFile, live_share: float = 1.0) -> bool:
    """Say whether a file with so many of its rows alive would better be one with others."""
    return not file.full and file.size * live_share < SMALL_BYTES


def pressing(table: MergeTable) -> bool:
    """Say whether so many rows of an open table are deleted, or so many of its files small, that readers feel it."""
    files = table.files()
    dead = sum(file.dead for file in files.values())
    small = sum(is_small(file) for file in files.values())
    rows = sum(table.row_count(number) for number in files) if dead else 0
    return small >= PRESSING_SMALL or dead > PRESSING_DEAD * rows


def slices(table: MergeTable) -> Iterator[list[int]]:
    """Give the files that are worth rewriting, in lists that become one commit each; never across partitions.

    Where a stream has several lanes, each sees to its own files, and does not mix them with what no lane claims.
    """
    found: dict[tuple[tuple[str, str | None], ...], list[_Candidate]] = {}
    for number, file in list(table.files().items()):
        if not table.keeps(file):
            continue
        share = file.dead / max(1, table.row_count(number)) if file.dead else 0.0
        small = is_small(file, 1 - share)
        if share >= DEAD_SHARE or small:
            live_rows = (file.rows or 0) - file.dead
            candidate = _Candidate(number, int(file.size * (1 - share)), live_rows, share, small)
            mixed = [] if table.lane.alone else [("", str(file.lane))]
            found.setdefault((*sorted(file.partition_values.items()), *mixed), []).append(candidate)
    made = [numbers for candidates in found.values() for numbers in _sliced(candidates)]
    for _, numbers in sorted(made, key=lambda one: -one[0]):
        yield numbers


def _sliced(candidates: Sequence[_Candidate]) -> Iterator[tuple[float, list[int]]]:
    """Give one partition's slices, each with its highest share of deleted rows."""
    dead = sorted((c for c in candidates if c.dead_share >= DEAD_SHARE), key=lambda c: -c.dead_share)
    small = sorted((c for c in candidates if c.dead_share < DEAD_SHARE), key=lambda c: c.live_bytes)
    many = sum(c.small for c in candidates) >= SMALL_COUNT
    rest = [*dead, *small] if many else dead
    while rest:
        taken, size, rows = 1, rest[0].live_bytes, rest[0].live_rows
        while taken < min(len(rest), SLICE_FILES):
            size, rows = size + rest[taken].live_bytes, rows + rest[taken].live_rows
            if size > SLICE_BYTES or rows > SLICE_ROWS:
                break
            taken += 1
        chosen, rest = rest[:taken], rest[taken:]
        worst = max(c.dead_share for c in chosen)
        if worst >= DEAD_SHARE or len(chosen) >= SMALL_COUNT:
            yield worst, sorted(c.number for c in chosen)  # older rows stay before newer ones

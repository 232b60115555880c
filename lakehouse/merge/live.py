"""A table's live files by number, their deleted rows, and what others did to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
from pyroaring import BitMap

from lakehouse.groups import Flags, Ints
from lakehouse.merge.locations import POSITION, POSITION_BITS, by_file
from lakehouse.merge.log import Change, DataFile, Snapshot
from lakehouse.merge.reading import FileReader
from lakehouse.merge.vectors import Descriptor

THREADS = 4  # files read at once
T = TypeVar("T")


@dataclass(frozen=True)
class News:
    """What others did to the live files, by file number."""

    new: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()
    changed: frozenset[int] = frozenset()  # other rows are deleted now

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.new or self.gone or self.changed)


class LiveFiles:
    """Follows a snapshot, change by change. A path keeps its number for as long as this object lives."""

    def __init__(self, reader: FileReader) -> None:
        self.files: dict[int, DataFile] = {}
        self._reader = reader
        self._numbers: dict[str, int] = {}
        self.next_number = 0  # above every number given so far
        self._vectors: dict[int, tuple[str, BitMap]] = {}  # number -> vector id, its rows
        self._news: tuple[set[int], set[int], set[int]] = (set(), set(), set())

    def begin(self, snapshot: Snapshot) -> None:
        """Take a whole snapshot."""
        self.files.clear()
        self.files.update({self._number(path): file for path, file in snapshot.files.items()})

    def follow(self, snapshot: Snapshot, change: Change, *, own: bool = False) -> None:
        """Take one commit, which the snapshot holds already; what others did becomes news."""
        new, gone, changed = ({self._number(p) for p in paths} for paths in (change.added, change.gone, change.changed))
        for number in gone:
            self.files.pop(number, None)
            self._vectors.pop(number, None)
        for path in change.touched:
            self.files[self._number(path)] = snapshot.files[path]
        if own:
            return
        told_new, told_gone, told_changed = self._news
        returned = new & told_gone  # with what vector is not known
        told_gone |= gone - told_new
        told_gone -= returned
        told_changed |= (changed - told_new) | returned
        told_changed -= gone
        told_new |= new - returned
        told_new -= gone

    def news(self) -> News:
        """Give what others did since the last call."""
        made = News(*(frozenset(numbers) for numbers in self._news))
        self._news = set(), set(), set()
        return made

    def row_count(self, number: int) -> int:
        """Give a file's physical row count."""
        return self._reader.row_count(self.files[number])

    def dead(self, number: int) -> BitMap | None:
        """Give the positions of a file's deleted rows; None when there are none."""
        if self.files[number].vector is None:
            return None
        self._load([number])
        return self._vectors[number][1]

    def living(self, number: int) -> Ints:
        """Give the locations of a file's rows that are not deleted."""
        return (number << POSITION_BITS) + positions_left(self.row_count(number), self.dead(number))

    def locations(self, path: str, count: int) -> Ints:
        """Give the locations of a file's first rows."""
        return (self._number(path) << POSITION_BITS) + np.arange(count, dtype=np.int64)

    def rows(self, locations: Ints, columns: pa.Schema) -> pa.Table:
        """Give columns of the rows at locations, in their order; raises KeyError for a file that is not live."""
        order = np.argsort(locations, kind="stable")
        ordered = locations[order]
        asked = [(self.files[number], ordered[where] & POSITION) for number, where in by_file(ordered)]

        def read(index: int) -> pa.Table:
            file, positions = asked[index]
            return self._reader.read(file, columns, positions, alone=len(asked) == 1)

        parts = _in_parallel(read, len(asked))
        if not parts:
            return columns.empty_table()
        found = pa.concat_tables(parts)
        if bool((np.diff(order) > 0).all()):
            return found
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return found.combine_chunks().take(pa.array(back))

    def whole(self, number: int, columns: pa.Schema) -> pa.Table:
        """Give columns of all rows of a file in their order, deleted ones included."""
        return self._reader.read(self.files[number], columns, alone=True)

    def deleting(self, locations: Ints) -> list[tuple[int, BitMap]]:
        """Give the files whose deleted rows grow by those at locations, with all of their deleted rows then.

        Locations in files that are not live, and of rows that are deleted, change nothing. Raises ValueError for a
        position that a file does not have.
        """
        ordered = np.unique(locations)
        asked = [(n, ordered[where] & POSITION) for n, where in by_file(ordered) if n in self.files]
        self._load(number for number, _ in asked)
        grown = []
        for number, positions in asked:
            if positions[-1] >= self.row_count(number):
                raise ValueError(f"no row {positions[-1]} in {self.files[number].path} of {self.row_count(number)}")
            before = self._vectors[number][1] if self.files[number].vector else BitMap()
            after = before | BitMap(positions.astype(np.uint32))
            if len(after) > len(before):
                after.run_optimize()
                grown.append((number, after))
        return grown

    def keep(self, number: int, rows: BitMap) -> None:
        """Remember the rows of the vector that a file has now, so that it need not be read."""
        self._vectors[number] = self._vector(number).id, rows

    def renumber(self, numbers: Mapping[str, int], next_number: int) -> None:
        """Give files the numbers that locations kept elsewhere name; nobody may hold others. What is news is forgotten.

        A number that belonged to another file is never given again: next_number stands above all of them.
        """
        files = list(self.files.values())
        self._numbers, self.next_number = dict(numbers), next_number
        self.files.clear()
        self.files.update({self._number(file.path): file for file in files})
        self._vectors.clear()
        self._news = set(), set(), set()

    def _number(self, path: str) -> int:
        number = self._numbers.setdefault(path, self.next_number)
        if number == self.next_number:
            self.next_number += 1
        return number

    def _vector(self, number: int) -> Descriptor:
        vector = self.files[number].vector
        assert vector is not None
        return vector

    def _load(self, numbers: Iterable[int]) -> None:
        """Read the vectors that are not known yet; those in one file together."""
        lacking: dict[str, list[int]] = {}
        for number in numbers:
            vector = self.files[number].vector
            if vector and self._vectors.get(number, ("",))[0] != vector.id:
                lacking.setdefault(vector.where if vector.storage == "u" else "", []).append(number)
        groups: Sequence[list[int]] = list(lacking.values())

        def read(index: int) -> list[BitMap]:
            return self._reader.vectors([self._vector(number) for number in groups[index]])

        for own, vectors in zip(groups, _in_parallel(read, len(groups)), strict=True):
            for number, rows in zip(own, vectors, strict=True):
                self.keep(number, rows)


def positions_left(count: int, dead: BitMap | None) -> Ints:
    """Give the positions of so many rows that are not deleted."""
    return np.flatnonzero(_left(count, dead)) if dead else np.arange(count, dtype=np.int64)


def rows_left(rows: pa.Table, dead: BitMap | None) -> pa.Table:
    """Give those of a file's rows that are not deleted."""
    return rows.filter(pa.array(_left(len(rows), dead))) if dead else rows


def _left(count: int, dead: BitMap) -> Flags:
    marks = np.ones(count, np.bool_)
    marks[np.asarray(dead.to_array(), np.int64)] = False
    return marks


def _in_parallel(read: Callable[[int], T], count: int) -> list[T]:
    if count < 2:
        return [read(index) for index in range(count)]
    with ThreadPoolExecutor(min(THREADS, count)) as pool:
        return list(pool.map(read, range(count)))

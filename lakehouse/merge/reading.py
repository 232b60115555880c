"""Reads rows of data files by position: only the columns and the row groups that are asked for."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from threading import Lock

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from pyroaring import BitMap

from lakehouse.errors import TableRefused
from lakehouse.groups import Ints
from lakehouse.lake import Lake
from lakehouse.merge.data_files import partition_scalar
from lakehouse.merge.log import DataFile
from lakehouse.merge.row_cache import RowCache
from lakehouse.merge.vectors import DamagedVector, Descriptor, span, unpack

FOOTERS = 512  # kept in memory
WHOLE_ROWS = 8  # columns, from which on rows are asked for and not a few values
FEW_ROWS = 10_000  # of a file that is read faster than kept
PIECE = 100_000  # rows, in which a file's rows are kept
GROUPS_AT_ONCE = 4  # row groups that are in memory for the sake of some of their rows
_Piece = tuple[int, int, Ints]  # its number, its rows, positions within


class FileReader:
    """Reads one table's data files and vector files. Keeps footers, which never change; safe for several threads."""

    def __init__(self, lake: Lake, table: str, cache: RowCache | None = None) -> None:
        self._lake = lake
        self._table = table
        self._cache = cache or RowCache()
        self.gives_rows = False  # whether single rows were asked for: then new files are worth keeping as well
        self._footers: OrderedDict[str, pq.FileMetaData] = OrderedDict()
        self._lock = Lock()

    def row_count(self, file: DataFile) -> int:
        """Give the physical row count of a file, from the log or else from its footer."""
        if file.rows is not None:
            return file.rows
        with self._open(file.path) as parquet:
            return int(parquet.metadata.num_rows)

    def read(
        self, file: DataFile, columns: pa.Schema, positions: Ints | None = None, *, alone: bool = False
    ) -> pa.Table:
        """Give columns of a file's rows at the given ascending positions, or of all its rows; alone: on all cores.

        A column that the file does not have is null, as Delta defines it; partition columns come from the log.
        """
        held = self._held(file, columns, positions)
        if held is not None:
            found = held.select([n for n in columns.names if n in held.column_names])
            if positions is None:
                return _completed(found, columns, file.partition_values, len(held))
            sizes = [len(piece) for piece in held.column(0).chunks]
            pieces = _cut(sizes, positions)
            starts = _starts(sizes)[[number for number, _, _ in pieces]]
            return _completed(_taken(found, starts, pieces), columns, file.partition_values, len(positions))
        with self._lake.explained(f"read {file.path} of table {self._table}"), self._open(file.path) as parquet:
            groups = _groups(parquet.metadata, positions)
            present = set(parquet.schema_arrow.names)
            names = [name for name in columns.names if name in present and name not in file.partition_values]

            def read(some: Sequence[_Piece]) -> pa.Table:
                return parquet.read_row_groups([group for group, _, _ in some], columns=names, use_threads=alone)

            if positions is None:
                return _completed(read(groups), columns, file.partition_values, sum(size for _, size, _ in groups))
            taken = []
            for start in range(0, len(groups), GROUPS_AT_ONCE):
                some = groups[start : start + GROUPS_AT_ONCE]
                taken.append(_taken(read(some), _starts([size for _, size, _ in some])[:-1], some))
        return _completed(pa.concat_tables(taken), columns, file.partition_values, len(positions))

    def keep(self, path: str, rows: pa.Table) -> None:
        """Remember the rows of a file that was just written, where single rows of the table are asked for."""
        if self.gives_rows and len(rows) >= FEW_ROWS:
            pieces = (rows.slice(start, PIECE) for start in range(0, len(rows), PIECE))
            self._cache.put(self._identity, path, pieces, rows.nbytes)

    @property
    def _identity(self) -> str:
        return f"{self._lake.uri}/{self._table}"

    def _held(self, file: DataFile, columns: pa.Schema, positions: Ints | None) -> pa.Table | None:
        """Give a file's rows from the cache; fill it where whole rows are asked for from most of the file."""
        held = self._cache.get(self._identity, file.path)
        if held is not None or positions is None or len(columns) < WHOLE_ROWS:
            return held
        self.gives_rows = True
        with self._lake.explained(f"read {file.path} of table {self._table}"), self._open(file.path) as parquet:
            footer = parquet.metadata
            if len(_groups(footer, positions)) * 2 < footer.num_row_groups or footer.num_rows < FEW_ROWS:
                return None
            first = parquet.read_row_group(0)
            rest = (parquet.read_row_group(number) for number in range(1, footer.num_row_groups))
            size = first.nbytes * footer.num_rows // max(1, len(first))
            kept = self._cache.put(self._identity, file.path, chain([first], rest), size)
        return self._cache.get(self._identity, file.path) if kept else None

    def vectors(self, descriptors: Sequence[Descriptor]) -> list[BitMap]:
        """Give the rows of deletion vectors; those in one file are fetched together. Raises DamagedVector."""
        found: dict[str, BitMap] = {d.id: d.inline() for d in descriptors if d.storage == "i"}
        by_path: dict[str, list[Descriptor]] = {}
        for descriptor in descriptors:
            if descriptor.storage != "i":
                by_path.setdefault(descriptor.path, []).append(descriptor)
        for path, own in by_path.items():
            spans = [span(descriptor) for descriptor in own]
            with self._lake.explained(f"read {path} of table {self._table}"):
                frames = obstore.get_ranges(
                    self._lake.objects,
                    f"{self._table}/{path}",
                    starts=[start for start, _ in spans],
                    ends=[end for _, end in spans],
                )
            for descriptor, frame in zip(own, frames, strict=True):
                found[descriptor.id] = self._unpacked(bytes(frame), descriptor)
        return [found[descriptor.id] for descriptor in descriptors]

    def _unpacked(self, frame: bytes, descriptor: Descriptor) -> BitMap:
        try:
            return unpack(frame, descriptor)
        except DamagedVector as error:
            raise TableRefused(
                f"table {self._table}: a deletion vector is damaged: {error}. Bring the file back from a copy, or move "
                "the stream's tables away to build the stream again."
            ) from error

    def _open(self, path: str) -> pq.ParquetFile:
        with self._lock:
            footer = self._footers.get(path)
            if footer is not None:
                self._footers.move_to_end(path)
        at = f"{self._table}/{path}"
        if self._lake.remote:
            source = pa.PythonFile(_RemoteFile(self._lake, at), mode="r")
            parquet = pq.ParquetFile(source, metadata=footer, pre_buffer=True)
        else:
            parquet = pq.ParquetFile(pa.memory_map(str(Path(self._lake.uri) / at)), metadata=footer)
        with self._lock:
            self._footers[path] = parquet.metadata
            while len(self._footers) > FOOTERS:
                self._footers.popitem(last=False)
        return parquet


class _RemoteFile(io.RawIOBase):
    """A file on the object store; each read is one request for a range."""

    def __init__(self, lake: Lake, path: str) -> None:
        self._lake = lake
        self._path = path
        self._at = 0
        self._size = int(obstore.head(lake.objects, path)["size"])

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._at + size)
        if end <= self._at:
            return b""
        data = bytes(obstore.get_range(self._lake.objects, self._path, start=self._at, end=end))
        self._at = end
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _groups(footer: pq.FileMetaData, positions: Ints | None) -> list[_Piece]:
    """Give the row groups that hold ascending positions (all, without any)."""
    sizes = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
    if positions is None:
        return [(number, size, np.empty(0, np.int64)) for number, size in enumerate(sizes)]
    return _cut(sizes, positions)


def _cut(sizes: Sequence[int], positions: Ints) -> list[_Piece]:
    """Give those of consecutive pieces of these sizes that hold ascending positions."""
    starts = _starts(sizes)
    cuts = np.searchsorted(positions, starts)
    return [
        (number, size, positions[cuts[number] : cuts[number + 1]] - starts[number])
        for number, size in enumerate(sizes)
        if cuts[number] < cuts[number + 1]
    ]


def _starts(sizes: Sequence[int]) -> Ints:
    return np.cumsum([0, *sizes])


def _taken(rows: pa.Table, starts: Ints, pieces: Sequence[_Piece]) -> pa.Table:
    """Give the rows at the positions within pieces that start there.

    One by one: over several chunks pyarrow's take copies all of them first.
    """
    found = zip(starts.tolist(), pieces, strict=True)
    return pa.concat_tables([rows.slice(start, size).take(pa.array(within)) for start, (_, size, within) in found])


def _completed(read: pa.Table, columns: pa.Schema, values: Mapping[str, str | None], count: int) -> pa.Table:
    def column(field: pa.Field) -> pa.ChunkedArray | pa.Array:
        if field.name in values:
            return pa.repeat(partition_scalar(values[field.name], field.type), count)
        if field.name not in read.column_names:
            return pa.nulls(count, field.type)
        return read[field.name].cast(field.type)

    return pa.Table.from_arrays([column(field) for field in columns], schema=columns)

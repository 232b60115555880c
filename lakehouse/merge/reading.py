"""Reads rows of data files by position: only the columns and the row groups that are asked for."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
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
from lakehouse.merge.data_files import ROW_GROUP, partition_scalar
from lakehouse.merge.log import DataFile
from lakehouse.merge.row_cache import RowCache
from lakehouse.merge.vectors import DamagedVector, Descriptor, span, unpack

FOOTERS = 512  # kept in memory
SIZES = 10_000  # files of which the row groups' sizes are known
WHOLE_ROWS = 8  # columns, from which on rows are asked for and not a few values
FEW_ROWS = 10_000  # of a file that is read faster than kept
_Piece = tuple[int, int, Ints]  # its number, its rows, positions within


class FileReader:
    """Reads one table's data files and vector files. Keeps footers, which never change; safe for several threads."""

    def __init__(self, lake: Lake, table: str, cache: RowCache | None = None) -> None:
        self._lake = lake
        self._table = table
        self._cache = cache or RowCache()
        self.gives_rows = False  # whether single rows were asked for: then new files are worth keeping as well
        self._footers: OrderedDict[str, pq.FileMetaData] = OrderedDict()
        self._sizes: OrderedDict[str, list[int]] = OrderedDict()  # path -> rows of its row groups
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
        if positions is None:
            return self._whole(file, columns, alone=alone)
        names = [name for name in columns.names if name not in file.partition_values]
        with self._lake.explained(f"read {file.path} of table {self._table}"), ExitStack() as stack:
            opened: list[pq.ParquetFile] = []

            def parquet() -> pq.ParquetFile:
                if not opened:
                    opened.append(stack.enter_context(self._open(file.path)))
                return opened[0]

            sizes = self._sizes_of(file.path) or _sizes(parquet().metadata)
            keeps = len(columns) >= WHOLE_ROWS and sum(sizes) >= FEW_ROWS
            self.gives_rows |= len(columns) >= WHOLE_ROWS
            taken, counts = list[pa.Table](), list[int]()
            for number, _, within in _cut(sizes, positions):
                rows = self._cache.get(self._identity, file.path, number)
                if rows is None:
                    rows = _group(parquet(), number, None if keeps else names, alone=alone)
                    if keeps:
                        self._cache.put(self._identity, file.path, number, rows)
                taken.append(rows.select([n for n in names if n in rows.column_names]).take(pa.array(within)))
                counts.append(len(within))
        if not taken:
            return columns.empty_table()
        if all(part.schema == taken[0].schema for part in taken):  # as a rule; one that was kept may differ
            taken, counts = [pa.concat_tables(taken)], [len(positions)]
        values = file.partition_values
        return pa.concat_tables([_completed(part, columns, values, n) for part, n in zip(taken, counts, strict=True)])

    def _whole(self, file: DataFile, columns: pa.Schema, *, alone: bool) -> pa.Table:
        """Give columns of all rows of a file: from what is kept, where all of it is."""
        names = [name for name in columns.names if name not in file.partition_values]
        sizes = self._sizes_of(file.path) or []
        held = [self._cache.get(self._identity, file.path, number) for number in range(len(sizes))]
        pieces = [rows.select([n for n in names if n in rows.column_names]) for rows in held if rows is not None]
        if sizes and len(pieces) == len(sizes):
            return pa.concat_tables(
                [
                    _completed(rows, columns, file.partition_values, size)
                    for rows, size in zip(pieces, sizes, strict=True)
                ]
            )
        with self._lake.explained(f"read {file.path} of table {self._table}"), self._open(file.path) as parquet:
            present = set(parquet.schema_arrow.names)
            found = parquet.read(columns=[name for name in names if name in present], use_threads=alone)
            return _completed(found, columns, file.partition_values, parquet.metadata.num_rows)

    def keep(self, path: str, rows: pa.Table) -> None:
        """Remember the rows of a file that was just written, where single rows of the table are asked for."""
        if self.gives_rows and len(rows) >= FEW_ROWS:
            starts = range(0, len(rows), ROW_GROUP)
            for number, start in enumerate(starts):
                self._cache.put(self._identity, path, number, rows.slice(start, ROW_GROUP))
            self._remember(path, [min(ROW_GROUP, len(rows) - start) for start in starts])

    @property
    def _identity(self) -> str:
        return f"{self._lake.uri}/{self._table}"

    def _sizes_of(self, path: str) -> list[int] | None:
        """Give how many rows the row groups of a file have, where it is known without opening the file."""
        with self._lock:
            return self._sizes.get(path)

    def _remember(self, path: str, sizes: list[int]) -> None:
        with self._lock:
            self._sizes[path] = sizes
            self._sizes.move_to_end(path)
            while len(self._sizes) > SIZES:
                self._sizes.popitem(last=False)

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
        self._remember(path, _sizes(parquet.metadata))
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


def _sizes(footer: pq.FileMetaData) -> list[int]:
    """Give how many rows each row group has."""
    return [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]


def _group(parquet: pq.ParquetFile, number: int, names: Sequence[str] | None, *, alone: bool) -> pa.Table:
    """Give columns (all, without names) of one row group; those that the file does not have are left out."""
    present = set(parquet.schema_arrow.names)
    wanted = None if names is None else [name for name in names if name in present]
    return parquet.read_row_group(number, columns=wanted, use_threads=alone)


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


def _completed(read: pa.Table, columns: pa.Schema, values: Mapping[str, str | None], count: int) -> pa.Table:
    def column(field: pa.Field) -> pa.ChunkedArray | pa.Array:
        if field.name in values:
            return pa.repeat(partition_scalar(values[field.name], field.type), count)
        if field.name not in read.column_names:
            return pa.nulls(count, field.type)
        return read[field.name].cast(field.type)

    return pa.Table.from_arrays([column(field) for field in columns], schema=columns)

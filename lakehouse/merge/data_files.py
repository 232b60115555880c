"""Writes the data files of a commit: Parquet, one or more per partition, with the add actions that describe them."""

from __future__ import annotations

import hashlib
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.appending import REPETITIVE
from lakehouse.groups import Ints
from lakehouse.lake import Lake
from lakehouse.merge.log import FULL
from lakehouse.merge.statistics import stats_of

TARGET_BYTES = 384 * 1024 * 1024  # of a file's rows in memory: about 128 MB as Parquet
ROW_GROUP = 100_000  # rows
THREADS = 4
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_PLAIN_NAME = re.compile(r"\w+", re.ASCII)
_LONGEST = 120  # characters of a partition value in a path


@dataclass(frozen=True)
class Layout:
    """How a table's files look."""

    columns: pa.Schema
    partition_by: tuple[str, ...]
    statistics: tuple[str, ...]  # columns whose bounds the log may hold
    target: int | None = None  # bytes of a file's rows in memory; None: TARGET_BYTES

    def conformed(self, rows: pa.Table) -> pa.Table:
        """Give rows with the table's columns in its order and types; a column that they lack is null.

        Raises ValueError for a column that the table lacks.
        """
        unknown = set(rows.column_names) - set(self.columns.names)
        if unknown:
            raise ValueError(f"columns that the table lacks: {sorted(unknown)}")
        columns = [
            _cast(rows[f.name], f.type) if f.name in rows.column_names else pa.nulls(len(rows), f.type)
            for f in self.columns
        ]
        return pa.Table.from_arrays(columns, schema=self.columns)


@dataclass(frozen=True)
class Part:
    """The rows that become one file, and where they stood."""

    values: Mapping[str, str | None]  # partition column -> value as the log writes it
    rows: pa.Table  # all columns of the table, the partition columns included
    taken: Ints  # positions of these rows in what was to be written


@dataclass(frozen=True)
class Written:
    """A file that was written: its path below the table, its add action, and where its rows stood."""

    path: str
    add: dict[str, Any]
    taken: Ints


def write_files(lake: Lake, table: str, rows: pa.Table, layout: Layout, *, data_change: bool = True) -> list[Written]:
    """Write rows (as Layout.conformed gives them) as new files of a table; they are no part of it before a commit.

    Raises what the storage raises.
    """
    parts = list(split(rows, layout))

    def write(part: Part) -> Written:
        return _write(lake, table, part, layout, data_change)

    if len(parts) == 1:
        return [write(parts[0])]
    with ThreadPoolExecutor(min(THREADS, max(1, len(parts)))) as pool:
        return list(pool.map(write, parts))


def split(rows: pa.Table, layout: Layout) -> Iterator[Part]:
    """Give the rows by partition, each partition in pieces of at most about the target; order is kept within."""
    target = layout.target or TARGET_BYTES
    for values, taken in _partitions(rows, layout.partition_by):
        own = rows if len(taken) == len(rows) else rows.take(pa.array(taken))
        pieces = max(1, min(len(own), -(-own.nbytes // target)))
        size = max(1, -(-len(own) // pieces))
        for start in range(0, len(own), size):
            yield Part(values, own.slice(start, size), taken[start : start + size])


def _partitions(rows: pa.Table, names: Sequence[str]) -> Iterator[tuple[dict[str, str | None], Ints]]:
    if not len(rows):
        return
    if not names:
        yield {}, np.arange(len(rows), dtype=np.int64)
        return
    texts = [partition_texts(rows[name]).dictionary_encode(null_encoding="encode") for name in names]
    code = np.zeros(len(rows), np.int64)
    for text in texts:
        _, code = np.unique(code * len(text.dictionary) + text.indices.to_numpy(), return_inverse=True)
    order = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.diff(code[order], prepend=-1))
    for taken in np.split(order, starts[1:]):
        first = taken[0]
        yield {n: t.dictionary[t.indices[first].as_py()].as_py() for n, t in zip(names, texts, strict=True)}, taken


def partition_texts(values: pa.ChunkedArray) -> pa.Array:
    """Give a partition column's values as the log writes them; in Delta an empty text is null."""
    kind = values.type
    if pa.types.is_binary(kind):
        values = values.cast(pa.string())  # raises for what is no text: Delta has no other form for it
    texts = values if pa.types.is_string(values.type) else values.cast(pa.string())
    whole = texts.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], pa.string())
    return pc.if_else(pc.equal(whole, ""), pa.scalar(None, pa.string()), whole)


def partition_scalar(text: str | None, kind: pa.DataType) -> pa.Scalar:
    """Give the value that a partition value in the log means."""
    if text is None or text == "":
        return pa.scalar(None, kind)
    if pa.types.is_timestamp(kind) and kind.tz and not _ZONED.search(text):
        text += "Z"
    return pa.array([text]).cast(kind)[0]


_ZONED = re.compile(r"(Z|[+-]\d\d:?\d\d)$")


def _write(lake: Lake, table: str, part: Part, layout: Layout, data_change: bool) -> Written:
    stored = part.rows.drop_columns([*layout.partition_by])
    sink = pa.BufferOutputStream()
    pq.write_table(
        stored,
        sink,
        row_group_size=ROW_GROUP,
        compression="zstd",
        compression_level=1,
        store_schema=False,
        **_encodings(stored.schema),
    )
    data = sink.getvalue()
    folders = "".join(f"{_escaped(name)}={_shown(value)}/" for name, value in part.values.items())
    path = f"{folders}part-00000-{uuid.uuid4()}-c000.zstd.parquet"
    with lake.explained(f"write a data file of table {table}"):
        obstore.put(lake.objects, f"{table}/{path}", memoryview(data).cast("B"))
    add = {
        "path": quote(path, safe="/=_.-"),
        "partitionValues": dict(part.values),
        "size": data.size,
        "modificationTime": time.time_ns() // 1_000_000,
        "dataChange": data_change,
        "stats": stats_of(stored, [name for name in layout.statistics if name in stored.column_names]),
    }
    if part.rows.nbytes * 2 >= (layout.target or TARGET_BYTES):
        add["tags"] = {FULL: "true"}
    return Written(path, add, part.taken)


def _encodings(columns: pa.Schema) -> dict[str, Any]:
    """Give how columns are written; see lakehouse.appending for why most have no dictionary."""
    plain = [f for f in columns if _PLAIN_NAME.fullmatch(f.name)]
    repetitive = [f.name for f in plain if f.name in REPETITIVE or pa.types.is_boolean(f.type)]
    delta = [
        f.name
        for f in plain
        if f.name not in repetitive and (pa.types.is_int64(f.type) or pa.types.is_int32(f.type) or _is_time(f.type))
    ]
    return {"use_dictionary": repetitive, "column_encoding": dict.fromkeys(delta, "DELTA_BINARY_PACKED")}


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date32(kind))


def _cast(values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return values if values.type == kind else values.cast(kind)


def _escaped(text: str) -> str:
    return quote(text, safe="")


def _shown(value: str | None) -> str:
    """Give a partition value for a path, shortened where a file system could refuse the name."""
    if value is None:
        return NULL_PARTITION
    escaped = _escaped(value)
    if len(escaped) <= _LONGEST:
        return escaped
    digest = hashlib.sha256(value.encode()).hexdigest()[:16]
    return f"{re.sub(r'%.?$', '', escaped[:80])}-{digest}"

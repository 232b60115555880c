"""An Avro object container built in memory around bare datums, so that a vectorised reader takes a batch at once.

Format: https://avro.apache.org/docs/1.11.1/specification/ ("Object Container Files"). The writer schema is wrapped in
a record whose first field is a marker of five bytes, which replaces each datum's Confluent header (0 and the schema
id). The markers are random: that the reader found each of them in its place proves that each datum took exactly its
own bytes, whatever the bytes are.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
from polars_avro import AvroError, AvroSpecError

# The package's reader without its lazy-frame wrapper: 0.1 ms instead of 2 ms for a small batch.
from polars_avro._avro_rs import AvroSource

from udfs import slices

Schema = Any  # parsed JSON

HEADER = 5  # bytes: 0 and a big-endian schema id
_MAGIC = b"Obj\x01"
_SYNC = bytes(range(16))
_MARKER = "tidegate_marker"
_SHAPE = ("type", "name", "namespace", "symbols", "size")
_READ_ERRORS = (AvroError, AvroSpecError, ValueError, OverflowError, MemoryError, pa.ArrowException)


class Reader:
    """Reads batches of datums written with one schema."""

    def __init__(self, schema: Schema, wanted: tuple[str, ...] | None) -> None:
        """Take a writer schema (a record at the top) and the top-level fields wanted, None for all.

        Raises ValueError when the vectorised reader cannot take the schema.
        """
        plain = bare(schema)
        if not isinstance(plain, dict) or plain.get("type") != "record":
            raise ValueError("the writer schema is not a record")
        names = [f["name"] for f in plain["fields"]]
        self._columns = [_MARKER, *(n for n in names if wanted is None or n in wanted)]
        marker = {"name": _MARKER, "type": {"type": "fixed", "name": _MARKER, "size": HEADER}}
        self._head = _head(orjson.dumps({**plain, "fields": [marker, *plain["fields"]]}))
        try:
            AvroSource([_source(self._head)], False, False).schema()
        except BaseException as fault:  # the reader's Rust panics are no Exception
            raise _as_value_error(fault) from None

    def read(self, values: pa.BinaryArray) -> pa.RecordBatch | None:
        """Give the columns of framed values (header and datum); None unless each is exactly one datum."""
        count = len(values)
        datums, markers = _marked(values)
        # One more datum than wanted: its marker proves where the last wanted one ends.
        block = self._head + _long(count + 1) + _long(len(datums)) + datums + _SYNC
        try:
            # A reader that goes on after the last datum loops for ever on bytes left over: it is asked for one batch.
            batch = pa.record_batch(next(_batches(block, count + 1, self._columns)))
            found = batch.column(_MARKER)
            _validate(batch)
        except (StopIteration, *_READ_ERRORS):
            return None
        except BaseException as fault:
            raise_unless_panic(fault)
            return None
        if len(batch) != count + 1 or not _equal(found, markers):
            return None
        return batch.slice(0, count).select(self._columns[1:])


def _marked(values: pa.BinaryArray) -> tuple[bytes, np.ndarray[Any, np.dtype[np.uint8]]]:
    """Give the values with their first one once more at the end, all headers replaced by random markers."""
    bounds, held = slices.offsets(values), slices.data(values)
    again = held[bounds[0] : bounds[1]]
    copy = np.concatenate([held[bounds[0] : bounds[-1]], again])
    starts = bounds - bounds[0]
    markers = np.frombuffer(os.urandom(HEADER * len(starts)), np.uint8).reshape(-1, HEADER)
    for place in range(HEADER):
        copy[starts + place] = markers[:, place]
    return copy.tobytes(), markers


def _equal(found: pa.Array, markers: np.ndarray[Any, np.dtype[np.uint8]]) -> bool:
    read = np.frombuffer(found.buffers()[1], np.uint8, len(found) * HEADER, found.offset * HEADER)
    return bool(np.array_equal(read, markers.reshape(-1)))


def _validate(batch: pa.RecordBatch) -> None:
    """Raise when a text is not UTF-8."""
    batch.validate(full=True)


def _batches(block: bytes, count: int, columns: list[str]) -> Iterator[Any]:
    return iter(AvroSource([_source(block)], False, False).batch_iter(count, columns))


def _source(block: bytes) -> Any:
    def opened() -> nullcontext[BinaryIO]:
        return nullcontext(io.BytesIO(block))

    return opened


def _head(schema: bytes) -> bytes:
    meta = _long(2) + _text(b"avro.schema") + _text(schema) + _text(b"avro.codec") + _text(b"null") + _long(0)
    return _MAGIC + meta + _SYNC


def _text(value: bytes) -> bytes:
    return _long(len(value)) + value


def _long(value: int) -> bytes:
    """Write a count as Avro's zig-zag varint."""
    left, written = value << 1, bytearray()
    while left > 0x7F:
        written.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*written, left])


def bare(schema: Schema) -> Schema:
    """Give the schema without logical types and annotations: the bytes stay the same, and nothing is interpreted."""
    if isinstance(schema, list):
        return [bare(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema["type"], dict | list):
        return bare(schema["type"])
    kept = {name: schema[name] for name in _SHAPE if name in schema}
    for part in ("items", "values"):
        if part in schema:
            kept[part] = bare(schema[part])
    if "fields" in schema:
        kept["fields"] = [{"name": f["name"], "type": bare(f["type"])} for f in schema["fields"]]
    return kept if len(kept) > 1 else kept["type"]


def _as_value_error(fault: BaseException) -> ValueError:
    raise_unless_panic(fault)
    return ValueError(f"the vectorised Avro reader does not take this schema ({type(fault).__name__})")


def raise_unless_panic(fault: BaseException) -> None:
    """Let through what must never be swallowed: an interrupt or exit, unlike a Rust panic."""
    if isinstance(fault, KeyboardInterrupt | SystemExit | GeneratorExit):
        raise fault

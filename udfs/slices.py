"""Byte slices of a binary Arrow array, cut and joined without a loop over values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


def offsets(values: pa.Array) -> Ints:
    """Give where each value of a binary or string array begins in its data, and where the last one ends."""
    if not len(values):
        return np.zeros(1, np.int64)
    return np.frombuffer(values.buffers()[1], np.int32, len(values) + 1, values.offset * 4).astype(np.int64)


def data(values: pa.Array) -> Bytes:
    """Give the bytes that `offsets` points into, without a copy."""
    held = values.buffers()[2] if len(values) else None
    return np.frombuffer(held, np.uint8) if held is not None else np.empty(0, np.uint8)


def inner(values: pa.BinaryArray, skip: int | Ints, drop: int | Ints = 0) -> pa.BinaryArray:
    """Give each value without its first `skip` and last `drop` bytes; the values must be long enough and not null."""
    bounds = offsets(values)
    return ranges(values, bounds[:-1] + skip, bounds[1:] - drop)


def ranges(values: pa.Array, starts: Ints, ends: Ints) -> pa.BinaryArray:
    """Give the byte ranges [start, end) of a binary array's data, in order; ranges must not overlap or go back."""
    count = len(starts)
    # The gap before each range becomes a value of its own, so that one `take` copies every second value.
    cuts = np.empty(2 * count + 1, np.int32)
    cuts[0], cuts[1::2], cuts[2::2] = (starts[0] if count else 0), starts, ends
    pieces = pa.BinaryArray.from_buffers(pa.binary(), 2 * count, [None, pa.py_buffer(cuts), _held(values)])
    return pieces.take(pa.array(np.arange(1, 2 * count, 2)))


def joined(values: pa.BinaryArray, after: bytes = b"") -> pa.Buffer:
    """Give all values (none null) as one buffer, each followed by `after` and a newline."""
    lines = pc.binary_join_element_wise(values, pa.scalar(after + b"\n", pa.binary()), pa.scalar(b"", pa.binary()))
    return _held(lines).slice(0, int(offsets(lines)[-1]))


def marks(mask: npt.NDArray[np.bool_]) -> pa.BooleanArray:
    """Give a numpy mask as a boolean Arrow array."""
    return pa.array(mask, pa.bool_())


def mask_of(values: pa.BooleanArray) -> npt.NDArray[np.bool_]:
    """Give a boolean Arrow array as a numpy mask; null counts as false."""
    filled = values.fill_null(False) if values.null_count else values
    return np.asarray(filled.to_numpy(zero_copy_only=False), np.bool_)


def valid(values: pa.Array) -> npt.NDArray[np.bool_]:
    """Give where an array is not null."""
    if not values.null_count:
        return np.ones(len(values), np.bool_)
    return np.asarray(values.is_valid().to_numpy(zero_copy_only=False), np.bool_)


def _held(values: pa.Array) -> pa.Buffer:
    held = values.buffers()[2] if len(values) else None
    return held if held is not None else pa.py_buffer(b"")


def ints(values: pa.Array) -> Ints:
    """Give integers (none null) as numpy."""
    return np.asarray(values.to_numpy(zero_copy_only=False), np.int64)

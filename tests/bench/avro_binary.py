"""Avro's binary form of whole columns at once: what the load generator needs to write millions of datums quickly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Longs = npt.NDArray[np.int64]


def longs(values: Longs) -> pa.BinaryArray:
    """Give each number as an Avro long: zigzag, then 7 bits a byte, the lowest first."""
    rest = ((values << 1) ^ (values >> 63)).astype(np.uint64)
    digits = np.empty((len(values), 10), np.uint8)
    lengths = np.ones(len(values), np.int32)
    for place in range(10):
        digits[:, place] = rest & np.uint64(0x7F)
        rest >>= np.uint64(7)
        lengths += rest > 0
    lengths = np.minimum(lengths, 10)
    used = np.arange(10) < lengths[:, None]
    digits |= np.where(np.arange(10) < lengths[:, None] - 1, np.uint8(0x80), np.uint8(0))
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int32)]).astype(np.int32)
    return pa.Array.from_buffers(pa.binary(), len(values), [None, pa.py_buffer(offsets), pa.py_buffer(digits[used])])


_LENGTHS = longs(np.arange(4096))


def texts(values: pa.Array) -> pa.BinaryArray:
    """Give each text (or bytes) of at most 4,095 bytes as an Avro string: its length, then its bytes."""
    data = values.cast(pa.binary())
    return pc.binary_join_element_wise(_LENGTHS.take(pc.binary_length(data)), data, b"")


def text(value: str | bytes) -> bytes:
    """Give one text as an Avro string."""
    data = value.encode() if isinstance(value, str) else value
    return long(len(data)) + data


def long(value: int) -> bytes:
    """Give one number as an Avro long."""
    found: bytes = longs(np.array([value], np.int64))[0].as_py()
    return found

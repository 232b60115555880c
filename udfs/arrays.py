"""Small facts about Arrow arrays that several steps need."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

SAMPLE = 512  # values looked at to tell whether a column repeats itself


def flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Give a column as one array, without a copy when it is one chunk."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def any_true(mask: pa.BooleanArray) -> bool:
    """Whether at least one value is true."""
    return bool(mask.true_count)


def repeat(value: bool, length: int) -> pa.BooleanArray:
    """Give a boolean array of one value."""
    packed = np.full((length + 7) // 8, 255 if value else 0, np.uint8)
    return pa.BooleanArray.from_buffers(pa.bool_(), length, [None, pa.py_buffer(packed)])


def is_ascii(text: pa.StringArray) -> bool:
    """Whether every value is ASCII, so that bytes may be taken for characters."""
    held = _bytes(text)
    return not len(held) or int(held.max()) < 128


def _bytes(text: pa.StringArray) -> npt.NDArray[np.uint8]:
    """Give the bytes of the values (those of null values included), without a copy."""
    if not len(text):
        return np.empty(0, np.uint8)
    offsets = np.frombuffer(text.buffers()[1], np.int32, len(text) + 1, text.offset * 4)
    data = text.buffers()[2]
    if data is None:
        return np.empty(0, np.uint8)
    return np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]


def over_distinct(values: pa.Array, function: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Give function(values) by calling it once, with the distinct values that are not null."""
    encoded = values.dictionary_encode()
    return function(encoded.dictionary).take(encoded.indices)


def repeats(values: pa.Array) -> bool:
    """Whether the values seem to repeat enough for `over_distinct` to pay, judged by the first few."""
    head = values.slice(0, SAMPLE)
    return len(values) > SAMPLE and pc.count_distinct(head).as_py() * 2 < len(head)


def fixed_width_text(data: bytes, width: int) -> pa.StringArray:
    """Give a text array from the bytes of texts that are all `width` bytes long."""
    count = len(data) // width if width else 0
    offsets = np.arange(0, (count + 1) * width, width, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(data))


def spread(values: pa.Array, where: pa.BooleanArray) -> pa.Array:
    """Give the values in order at the places where `where` is true, null at the others."""
    places = pc.subtract(pc.cumulative_sum(where.cast(pa.int64())), 1)
    return values.take(pc.if_else(where, places, pa.scalar(None, pa.int64())))

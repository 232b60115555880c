"""Base64 text to bytes (RFC 4648 section 4), a whole column at a time."""

from __future__ import annotations

import binascii
import re

import numpy as np
import pyarrow as pa

from udfs import slices
from udfs.converted import Mask

_PAD = ord("=")
_ZERO = ord("A")  # the character of six zero bits
_ALPHABET = np.zeros(256, np.bool_)
_WHOLE = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_ALPHABET[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")] = True


def decode(text: pa.StringArray) -> tuple[pa.BinaryArray, Mask | None]:
    """Give the bytes of base64 texts, and a mask of the texts that are not base64 (their bytes are null)."""
    bounds = slices.offsets(text)
    held = slices.data(text)[bounds[0] : bounds[-1]].copy()
    bounds -= bounds[0]
    starts, ends = bounds[:-1], bounds[1:]
    padding = _clear_padding(held, starts, ends)
    wrong = (ends - starts) % 4 != 0
    if wrong.any() or not _ALPHABET[held].all():
        return _decode_some(text, wrong)
    # Every text is a multiple of four characters, so the texts decode as one.
    whole = binascii.a2b_base64(held.data)
    return _packed(whole, starts // 4 * 3, ends // 4 * 3 - padding, text), None


def _clear_padding(held: slices.Bytes, starts: slices.Ints, ends: slices.Ints) -> slices.Ints:
    """Turn the padding at the end of each text into zero bits; give how many characters that were."""
    padding = np.zeros(len(starts), np.int64)
    for back in (1, 2):
        reached = np.flatnonzero((ends - starts >= 4) & (padding == back - 1))
        reached = reached[held[ends[reached] - back] == _PAD]
        held[ends[reached] - back] = _ZERO
        padding[reached] += 1
    return padding


def _packed(whole: bytes, starts: slices.Ints, ends: slices.Ints, text: pa.StringArray) -> pa.BinaryArray:
    source = pa.BinaryArray.from_buffers(
        pa.binary(), 1, [None, pa.py_buffer(np.array([0, len(whole)], np.int32)), pa.py_buffer(whole)]
    )
    packed = slices.ranges(source, starts, ends)
    if not text.null_count:
        return packed
    return pa.BinaryArray.from_buffers(
        pa.binary(), len(text), [text.is_valid().buffers()[1], packed.buffers()[1], packed.buffers()[2]]
    )


def _decode_some(text: pa.StringArray, wrong: Mask) -> tuple[pa.BinaryArray, Mask]:
    """Find the texts that are not base64, one by one because a batch that holds one is rare, and read the others."""
    plain = text.to_pylist()
    for index, value in enumerate(plain):
        wrong[index] = value is not None and not _is_base64(value)
    kept = pa.array([None if bad else value for value, bad in zip(plain, wrong, strict=True)], pa.string())
    return decode(kept)[0], wrong


def _is_base64(value: str) -> bool:
    """Say what the vectorised way says: Python's own strict mode lets padding pass that belongs to nothing."""
    return _WHOLE.fullmatch(value) is not None

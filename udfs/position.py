"""Where a change stands in its source: the pair (major, minor) that decides which of two changes to a key wins.

PostgreSQL: `source.sequence` is the JSON text of a pair of LSNs as text, [LSN of the last commit, LSN of the change];
the first is null in an initial snapshot. The pair rises within a partition; the LSN alone does not.
A plain event's position is (0, Kafka offset).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from udfs import slices
from udfs.slices import Ints


@dataclass(frozen=True)
class Position:
    """Positions of a batch's rows, both int64; major is null for a row of an initial snapshot."""

    major: pa.Array
    minor: pa.Array


# What a database's `source` block must give, and how it becomes a position; one entry per database.
PositionOf = Callable[[Mapping[str, pa.Array]], Position]

_SEQUENCE = re.compile(r'^\[(?:null|"(\d{1,19})"),(?:null|"(\d{1,19})")\]$')
_ZERO = ord("0")


def of_postgresql(source: Mapping[str, pa.Array]) -> Position:
    """Give the positions that `sequence` holds, else `lsn` as the minor one."""
    sequence, lsn = source["sequence"], source["lsn"]
    lengths = np.diff(slices.offsets(sequence))
    if sequence.null_count == 0 and len(sequence) and int(lengths.min()) == int(lengths.max()):
        pair = _same_width(sequence, int(lengths[0]))
        if pair is not None:
            return Position(pa.array(pair[0]), pa.array(pair[1]))
    return _one_by_one(sequence, lsn)


def of_offsets(offsets: pa.Array) -> Position:
    """Give the positions of plain events."""
    return Position(pa.array(np.zeros(len(offsets), np.int64)), offsets)


def _same_width(sequence: pa.StringArray, width: int) -> tuple[Ints, Ints] | None:
    """Read texts that all have the quotes of the first one in the same places; None when they do not."""
    first = _SEQUENCE.match(sequence[0].as_py())
    if first is None or first[1] is None or first[2] is None:
        return None
    start = int(slices.offsets(sequence)[0])
    table = slices.data(sequence)[start : start + width * len(sequence)].reshape(len(sequence), width)
    literal = np.delete(np.arange(width), np.r_[slice(*first.span(1)), slice(*first.span(2))])
    if not (table[:, literal] == table[0, literal]).all():
        return None
    major, minor = _digits(table, *first.span(1)), _digits(table, *first.span(2))
    return None if major is None or minor is None else (major, minor)


def _digits(table: slices.Bytes, first: int, last: int) -> Ints | None:
    digits = table[:, first:last] - np.uint8(_ZERO)  # a byte below "0" wraps to above 9
    if (digits > 9).any():
        return None
    powers = 10 ** np.arange(last - first - 1, -1, -1, dtype=np.int64)
    return digits.astype(np.int64) @ powers if last - first < 19 else None


def _one_by_one(sequence: pa.StringArray, lsn: pa.Array) -> Position:
    """Read texts of several widths: snapshots, and the rare batch in which an LSN gains a digit."""
    parts = pc.extract_regex(sequence, r'^\[(?:null|"(?P<a>\d{1,19})"),(?:null|"(?P<b>\d{1,19})")\]$')
    major, minor = (_whole(part) for part in parts.flatten())
    return Position(major, pc.coalesce(minor, lsn.cast(pa.int64())))


def _whole(digits: pa.StringArray) -> pa.Array:
    missing = pc.equal(digits, "")
    filled = pc.if_else(missing, pa.scalar(None, pa.string()), digits)
    try:
        return pc.cast(filled, pa.int64())
    except pa.ArrowInvalid:  # nineteen digits may exceed int64
        return pa.array([int(v) if v and int(v) < 1 << 63 else None for v in filled.to_pylist()], pa.int64())

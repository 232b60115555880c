"""Where a change stands in its source: the pair (major, minor) that decides which of two changes to a key wins.

Pairs are compared as pairs: major first, then minor. What a database sends decides how they are made:

- PostgreSQL: `source.sequence` is the JSON text of a pair of LSNs as text, [LSN of the last commit, LSN of the change];
  the first is null in an initial snapshot. The pair rises within a partition; the LSN alone does not. Rows of an
  incremental snapshot have no `lsn`, but a sequence. A row with neither has no position: commit gives it the highest
  one seen before it in its partition.
- MySQL and MariaDB: `source.file` (`mysql-bin.000003`) is the number of a binlog file, `source.pos` a byte in it and
  `source.row` a row of the event there. Rows of a snapshot have the place the snapshot was taken at, which lies before
  that of every change after it. A GTID orders nothing: those of two servers run side by side, and a replica has the
  same ones at other places. Once another server is followed, or RESET MASTER was run, files are numbered anew and
  positions start over: an epoch of its own.
- A plain event's position is (0, Kafka offset).
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


# How the columns of a database's `source` block become a position.
PositionOf = Callable[[Mapping[str, pa.Array]], Position]

_SEQUENCE = re.compile(r'^\[(?:null|"(\d{1,19})"),(?:null|"(\d{1,19})")\]$')
_FILE = re.compile(r".*\.(\d{1,18})")
_ZERO = ord("0")
_ROW_BITS = 20  # of a MySQL position's minor number; the byte's place has the others


def of_source(source: Mapping[str, pa.Array]) -> Position:
    """Give the positions of change events, by the database that a row's `source` shows: only MySQL's names a file."""
    in_file = source["file"].is_valid()
    if not in_file.true_count:
        return of_postgresql(source)
    found, other = of_mysql(source), of_postgresql(source)
    return Position(pc.if_else(in_file, found.major, other.major), pc.if_else(in_file, found.minor, other.minor))


def of_mysql(source: Mapping[str, pa.Array]) -> Position:
    """Give the positions (file number, byte << 20 | row); null where the source does not say them."""
    files = source["file"].dictionary_encode()
    numbers = [_FILE.fullmatch(name) for name in files.dictionary.to_pylist()]
    major = pa.array([int(n[1]) if n else None for n in numbers], pa.int64()).take(files.indices)
    # An event has fewer rows than 2**20, and a file fewer bytes than 2**43: both are far above what servers write.
    row = pc.min_element_wise(pc.coalesce(source["row"], 0), (1 << _ROW_BITS) - 1)
    beyond = pc.greater_equal(source["pos"], 1 << (63 - _ROW_BITS))
    byte = pc.if_else(pc.or_(beyond, pc.less(source["pos"], 0)), pa.scalar(None, pa.int64()), source["pos"])
    minor = pc.bit_wise_or(pc.shift_left(byte, _ROW_BITS), row)
    known = pc.and_(major.is_valid(), minor.is_valid())
    return Position(*(pc.if_else(known, part, pa.scalar(None, pa.int64())) for part in (major, minor)))


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


# Connector name, as `source.connector` has it -> how its positions are read. The table is the documentation: what is
# asked at run time is whether a row's `source` names a file.
DATABASES: Mapping[str, PositionOf] = {"postgresql": of_postgresql, "mysql": of_mysql, "mariadb": of_mysql}


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

"""The end of a Debezium JSON envelope, from `,"source":{` on, read without a parser where only its digits differ.

A connector writes the same tail for every change, but for its numbers and the letter of `op`; it is more than half of a
small record. A batch's tails are compared byte by byte with that of one record: equal outside the digits, digits where
that one has digits. What is left of a record, closed with `}`, goes to the JSON reader. When that is one object, then
so is the whole record: the tail continues an object after a member exactly as it does in the record it was compared
with, which is valid JSON. Records with another tail are left to the JSON reader as they are.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from udfs import kinds, slices
from udfs.converted import Mask
from udfs.decoded import FILE_PLACE, SOURCE
from udfs.slices import Bytes, Ints

Words = npt.NDArray[np.uint64]

_START = b',"source":{'
_OWN = frozenset({"before", "after"})  # a tail that holds these is none
_SEQUENCE = re.compile(rb'"sequence":"\[(?:null|\\"(\d{1,18})\\"),\\"(\d{1,18})\\"\]"')
_NUMBERS = {name: re.compile(rb'"%s":(\d{1,18})[,}]' % name.encode()) for name in ("lsn", "txId", "ts_us", "ts_ms")}
_OP = re.compile(rb'"op":"(.)"')
_ENDS = np.frombuffer(b"}l", np.uint8)  # what `after` ends with: an object or null
_WORD = 8
_BLOCK = 256  # rows compared at once, so that what is worked on stays in the processor's cache
_REPEATED = np.uint64(0x0101010101010101)
_LOW, _HIGH = _REPEATED * np.uint64(0x7F), _REPEATED * np.uint64(0x80)
_ZEROS, _ABOVE_NINE = _REPEATED * np.uint64(0x30), _REPEATED * np.uint64(0x76)

Span = tuple[int, int]


@dataclass(frozen=True)
class Template:
    """One record's tail: which bytes are fixed, and where its numbers stand."""

    size: int  # bytes of the tail
    padding: int  # bytes before it, so that it is a whole number of words
    text: Words
    fixed: Words
    digits: Words
    leading: Ints  # columns of first digits that must not be zero
    op: int  # column of the letter
    sequence: tuple[Span | None, Span | None]  # the pair's two numbers
    numbers: dict[str, Span | None]
    snapshot: str | None

    @classmethod
    def of(cls, value: bytes) -> Template | None:
        """Give the template of one record, None when its tail has no known form."""
        start = value.rfind(_START)
        tail = value[start:]
        padding = -len(tail) % _WORD
        read = _read(tail) if start > padding else None
        if read is None:
            return None
        sequence, op = _SEQUENCE.search(tail), _OP.search(tail)
        if sequence is None or op is None or not _agree(read, sequence, op):
            return None
        numbers = {name: _span(pattern.search(tail), padding) for name, pattern in _NUMBERS.items()}
        if any(_number(tail, span, padding) != read["source"].get(name) for name, span in numbers.items()):
            return None
        text = np.frombuffer(b"\0" * padding + tail, np.uint8)
        digits = (text - np.uint8(ord("0"))) <= 9
        fixed = ~digits
        fixed[:padding] = False
        fixed[padding + op.start(1)] = False
        return cls(
            size=len(tail),
            padding=padding,
            text=text.view(np.uint64),
            fixed=_mask(fixed),
            digits=_mask(digits),
            leading=_leading(text, digits),
            op=padding + op.start(1),
            sequence=(_span(sequence, padding, 1), _span(sequence, padding, 2)),
            numbers=numbers,
            snapshot=read["source"].get("snapshot"),
        )


@dataclass(frozen=True)
class Cut:
    """Records with one tail: what is left of them, and what the tail said."""

    index: Ints  # which of the given values they are
    heads: pa.BinaryArray  # each without its tail, so without the closing brace
    columns: dict[str, pa.Array]  # source (a struct) and op


def cut(values: pa.BinaryArray, template: Template) -> Cut | None:
    """Give the records that have the template's tail; None when there are none."""
    bounds = slices.offsets(values)
    index = np.flatnonzero(np.diff(bounds) > template.size + template.padding + 1)
    last = slices.data(values)[bounds[1:][index] - template.size - 1]
    index = index[(last == _ENDS[0]) | (last == _ENDS[1])]
    if not len(index):
        return None
    starts, ends = bounds[:-1][index], bounds[1:][index]
    table = _table(values, ends, template)
    same = _same(table, template)
    if not same.all():
        index, starts, ends, table = index[same], starts[same], ends[same], table[same]
    if not len(index):
        return None
    return Cut(index, slices.ranges(values, starts, ends - template.size), _columns(table, template))


def _table(values: pa.BinaryArray, ends: Ints, template: Template) -> Bytes:
    width = template.size + template.padding
    tails = slices.ranges(values, ends - width, ends)
    return np.frombuffer(tails.buffers()[2], np.uint8)[: width * len(ends)].reshape(len(ends), width)


def _same(table: Bytes, template: Template) -> Mask:
    """Tell which rows equal the template outside its digits, and have digits where it has some."""
    words = table.view(np.uint64)
    same = np.empty(len(table), np.bool_)
    for first in range(0, len(table), _BLOCK):
        block = words[first : first + _BLOCK]
        other = (block ^ template.text) & template.fixed
        # A byte is a digit when, less "0", it is at most 9: adding 0x76 must not reach the high bit.
        value = block ^ _ZEROS
        other |= (((value & _LOW) + _ABOVE_NINE) | value) & _HIGH & template.digits
        same[first : first + _BLOCK] = np.bitwise_or.reduce(other, axis=1) == 0
    letters = np.isin(table[:, template.op], _OPS)
    leading = (table[:, template.leading] != ord("0")).all(axis=1)
    return np.asarray(same & letters & leading, np.bool_)


_OPS = np.frombuffer("".join(kinds.CHANGES).encode(), np.uint8)


def _columns(table: Bytes, template: Template) -> dict[str, pa.Array]:
    """Give `source` and `op` as the JSON reader would, but for `sequence`, which is read as two numbers."""
    count = len(table)
    numbers = {name: _digits(table, span) for name, span in template.numbers.items()}
    numbers["major"], numbers["minor"] = _digits(table, template.sequence[0]), _digits(table, template.sequence[1])
    children = {name: pa.nulls(count, pa.int64()) if n is None else pa.array(n) for name, n in numbers.items()}
    children["snapshot"] = _repeated(template.snapshot, count)
    letters = np.ascontiguousarray(table[:, template.op])
    op = pa.StringArray.from_buffers(count, pa.py_buffer(np.arange(count + 1, dtype=np.int32)), pa.py_buffer(letters))
    names = [f.name for f in CUT_SOURCE]
    return {"source": pa.StructArray.from_arrays([children[n] for n in names], fields=list(CUT_SOURCE)), "op": op}


def _digits(table: Bytes, span: Span | None) -> Ints | None:
    if span is None:
        return None
    number = np.zeros(len(table), np.int64)
    for place in range(*span):
        number *= 10
        number += table[:, place]
    # Each digit was added as its character: take off as many zeros.
    number -= ord("0") * ((10 ** (span[1] - span[0]) - 1) // 9)
    return number


def _repeated(value: str | None, count: int) -> pa.StringArray:
    if value is None:
        return pa.nulls(count, pa.string())
    text = value.encode()
    offsets = np.arange(count + 1, dtype=np.int32) * len(text)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text * count))


def _read(tail: bytes) -> dict[str, Any] | None:
    """Read a tail as the end of an object; None when it is none, or not one of a change event."""
    whole = b'{"":0' + tail
    try:
        orjson.loads(whole)  # strict where the reader below is not
        read: dict[str, Any] = json.loads(whole, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError):
        return None
    source = read.get("source")
    if _OWN & read.keys() or not isinstance(source, dict) or any(isinstance(v, dict | list) for v in source.values()):
        return None
    snapshot = source.get("snapshot")
    return read if snapshot is None or isinstance(snapshot, str) else None


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return names


def _agree(read: dict[str, Any], sequence: re.Match[bytes], op: re.Match[bytes]) -> bool:
    """Whether what was found by pattern is what the JSON says, and not the same text somewhere else."""
    first = "null" if sequence[1] is None else f'"{sequence[1].decode()}"'
    text = f'[{first},"{sequence[2].decode()}"]'
    return bool(read["source"].get("sequence") == text and read.get("op") == op[1].decode("latin-1"))


def _span(found: re.Match[bytes] | None, padding: int, group: int = 1) -> Span | None:
    if found is None or found[group] is None:
        return None
    return found.start(group) + padding, found.end(group) + padding


def _number(tail: bytes, span: Span | None, padding: int) -> int | None:
    return None if span is None else int(tail[span[0] - padding : span[1] - padding])


def _leading(text: Bytes, digits: Mask) -> Ints:
    """Give the columns of the first digits of numbers with more than one: JSON allows no zero there."""
    first = np.flatnonzero(digits[1:-1] & ~digits[:-2] & digits[2:]) + 1
    return np.asarray(first[np.isin(text[first - 1], np.frombuffer(b":,[-", np.uint8))], np.int64)


def _mask(chosen: Mask) -> Words:
    return np.where(chosen, np.uint8(0xFF), np.uint8(0)).view(np.uint64)


# The children of a cut record's `source`: those of SOURCE, with the pair in place of what it was read from.
_NOT_CUT = {"sequence", *(name for name, _ in FILE_PLACE)}
CUT_SOURCE = pa.struct([("major", pa.int64()), ("minor", pa.int64()), *(f for f in SOURCE if f.name not in _NOT_CUT)])

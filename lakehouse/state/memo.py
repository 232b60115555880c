"""What stored rows remember of older changes (the column `_memo`), as arrays. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.groups import NONE, Flags, Ints, int64s
from lakehouse.state.columns import MEMO, OLDER
from lakehouse.state.events import lists_at


@dataclass(frozen=True)
class Older:
    """Columns whose value came with an earlier change; one entry per row and column, by ascending row."""

    row: Ints
    column: pa.StringArray
    major: Ints
    minor: Ints
    linked: Flags

    def take(self, marks: Flags) -> Older:
        """Give the marked entries."""
        column = self.column.filter(pa.array(marks))
        return Older(self.row[marks], column, self.major[marks], self.minor[marks], self.linked[marks])


@dataclass(frozen=True)
class Memo:
    """The memos of rows."""

    stale: tuple[Ints, Ints]  # NONE where no change waits
    linked_from: pa.StringArray
    older: Older
    begin: tuple[Ints, Ints]  # where a version began that was said again, NONE
    said_again_at: Ints
    hidden: pa.ListArray  # columns that a change said which waits

    @classmethod
    def of(cls, stale: Ints, linked_from: pa.StringArray, older: Older, hidden: pa.ListArray | None = None) -> Memo:
        """Give memos of rows that were said once (stale: n x 2)."""
        nothing = np.full(len(stale), NONE, np.int64)
        hidden = pa.nulls(len(stale), MEMO.field("hidden").type) if hidden is None else hidden
        return cls((stale[:, 0], stale[:, 1]), linked_from, older, (nothing, nothing), nothing, hidden)


def read_memo(column: pa.ChunkedArray) -> Memo:
    """Give the memos of stored rows."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    numbers = {
        field.name: int64s(pa.chunked_array([pc.struct_field(whole, field.name)]))
        for field in MEMO
        if pa.types.is_integer(field.type)
    }
    lists = pc.struct_field(whole, "older")
    entries = lists.flatten()
    rows = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    fields = {field.name: pc.struct_field(entries, field.name) for field in OLDER}
    older = Older(
        rows,
        fields["column"],
        fields["major"].to_numpy(zero_copy_only=False),
        fields["minor"].to_numpy(zero_copy_only=False),
        fields["linked"].to_numpy(zero_copy_only=False).astype(np.bool_),
    )
    return Memo(
        (numbers["stale_major"], numbers["stale_minor"]),
        pc.struct_field(whole, "linked_from"),
        older,
        (numbers["begin_major"], numbers["begin_minor"]),
        numbers["said_again_at"],
        pc.struct_field(whole, "hidden"),
    )


def write_memo(memo: Memo, length: int) -> pa.StructArray:
    """Give the column `_memo` of rows, null where there is nothing to remember."""
    older = memo.older
    entries = pa.StructArray.from_arrays(
        [older.column, pa.array(older.major), pa.array(older.minor), pa.array(older.linked)], fields=list(OLDER)
    )
    order = np.argsort(older.row, kind="stable")
    lists = lists_at(older.row[order].astype(np.intp), entries.take(pa.array(order)), length)
    stale, begin = ([pa.array(v, mask=v == NONE) for v in pair] for pair in (memo.stale, memo.begin))
    again = pa.array(memo.said_again_at, mask=memo.said_again_at == NONE)
    columns = [*stale, memo.linked_from, lists, *begin, again, memo.hidden]
    nothing = stale[0].is_null()
    for column in columns[2:]:
        nothing = pc.and_(nothing, column.is_null())
    return pa.StructArray.from_arrays(columns, fields=list(MEMO), mask=nothing)


def remembers(memo: pa.ChunkedArray, pending: pa.ChunkedArray) -> Flags:
    """Mark the rows that must be read again before a change of their key can be judged."""
    marks: Flags = pc.or_(pc.is_valid(memo), pc.is_valid(pending)).to_numpy()
    return marks


def gather(parts: Mapping[str, tuple[Ints, Ints, Ints, Flags]]) -> Older:
    """Give the entries of several columns (row, major, minor, linked) as one, by ascending row."""
    if not parts:
        nothing = np.zeros(0, np.int64)
        return Older(nothing, pa.array([], pa.string()), nothing, nothing, np.zeros(0, np.bool_))
    rows = np.concatenate([part[0] for part in parts.values()])
    which = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts.values()])
    order = np.argsort(rows, kind="stable")
    return Older(
        rows[order],
        pa.array(list(parts), pa.string()).take(pa.array(which[order])),
        np.concatenate([part[1] for part in parts.values()])[order],
        np.concatenate([part[2] for part in parts.values()])[order],
        np.concatenate([part[3] for part in parts.values()])[order],
    )

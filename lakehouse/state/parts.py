"""Candidates of one origin: what a batch's events say of keys, and what stored rows and records of deletes do. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.groups import NONE, Flags, Ints
from lakehouse.state.candidates import NEW
from lakehouse.state.columns import REST
from lakehouse.state.events import ALIVE, CELL, DEAD, NOTE, Events, held, unset_of
from lakehouse.state.memo import Memo, Older, read_memo

ENDS = pa.array(["d", "t"])  # the _op of records of rows that are gone from the source


@dataclass
class Part:
    """Candidates, and what of each of them only some origins know (None: nothing)."""

    rows: pa.Table
    group: Ints
    major: Ints
    minor: Ints
    what: np.ndarray[tuple[int, ...], np.dtype[np.int8]]
    location: Ints
    unset: dict[str, Flags]
    texts: pa.Array
    linked: Flags
    cell: np.ndarray[tuple[int, ...], np.dtype[np.int32]] | None = None
    fallback: Flags | None = None
    weak: Flags | None = None
    linked_out: Flags | None = None
    recorded: Flags | None = None  # records of deletes, or what becomes some
    waits: tuple[Ints, Ints] | None = None  # position of the newest change that waits, NONE
    remembered: dict[str, Ints] = field(default_factory=dict)
    again: Flags | None = None
    said_at: Ints | None = None
    hidden: dict[str, Flags] = field(default_factory=dict)
    stands: bool = False  # rows of current or history

    def __len__(self) -> int:
        return len(self.group)


def of_events(events: Events, group: Ints, columns: Sequence[str], schema: pa.Schema) -> Part:
    """Give a batch's events as candidates."""
    note = events.what == NOTE
    return Part(
        shaped_values(events.rows, schema),
        group.astype(np.int64),
        events.major,
        events.minor,
        events.what,
        np.full(len(events), NEW, np.int64),
        {name: events.unset[name] for name in columns if name in events.unset},
        events.rows["_previous_key"].combine_chunks(),
        events.linked_in,
        weak=events.weak,
        linked_out=events.linked_out,
        recorded=events.what == DEAD,
        waits=(np.where(note, events.major, NONE), np.where(note, events.minor, NONE)),
        hidden=_said_by_notes(events, note, columns),
    )


def _said_by_notes(events: Events, note: Flags, columns: Sequence[str]) -> dict[str, Flags]:
    """Give, by column, the changes that wait and say it."""
    if not note.any():
        return {}
    return {n: note & ~events.unset[n] if n in events.unset else note for n in columns if n != REST}


def of_current(rows: pa.Table, group: Ints, location: Ints, columns: Sequence[str], schema: pa.Schema) -> list[Part]:
    """Give stored rows as candidates: the rows, and a cell for each column that came with an earlier change."""
    soft = "_deleted" in rows.column_names
    dead = pc.fill_null(rows["_deleted"], False).to_numpy() if soft else np.zeros(len(rows), np.bool_)
    memo = read_memo(rows["_memo"])
    pending = unset_of(rows["_pending"])
    silent = {name: pending.get(name, np.zeros(len(rows), np.bool_)).copy() for name in columns}
    for name in columns:
        silent[name][memo.older.row[_named(memo.older, name)]] = True
    unset = {name: marks & ~dead for name, marks in silent.items()}
    whole = _whole(rows, group, location, memo, schema, columns)
    whole.what, whole.unset, whole.stands = np.where(dead, DEAD, ALIVE).astype(np.int8), unset, True
    return [whole, *_said_again(whole, memo), *_cells(whole, memo, pending, columns)]


def of_records(rows: pa.Table, group: Ints, location: Ints, columns: Sequence[str], schema: pa.Schema) -> list[Part]:
    """Give stored records of deletes as candidates: the deletes, and a cell for each column that they keep."""
    weak = ~pc.is_in(rows["_op"], value_set=ENDS).to_numpy() & ~held(rows["_next_key"])
    memo, unkept = _parted(read_memo(rows["_memo"]), rows, columns)
    whole = _whole(rows, group, location, memo, schema, columns)
    whole.what, whole.weak = np.full(len(rows), DEAD, np.int8), weak
    whole.unset = {name: weak & ~marks for name, marks in unkept.items()}
    whole.linked_out, whole.recorded = held(rows["_next_key"]), np.ones(len(rows), np.bool_)
    return [whole, *_cells(whole, memo, unset_of(rows["_pending"]), columns)]


def _whole(rows: pa.Table, group: Ints, location: Ints, memo: Memo, schema: pa.Schema, columns: Sequence[str]) -> Part:  # noqa: PLR0917
    count, older = len(rows), memo.older
    remembered: dict[str, Ints] = {}
    for name in columns:
        entries = _named(older, name)
        if entries.any():
            remembered[name] = np.full((count, 2), NONE, np.int64)
            remembered[name][older.row[entries]] = np.stack([older.major[entries], older.minor[entries]], axis=1)
    return Part(
        shaped_values(rows, schema),
        group.astype(np.int64),
        rows["_order_major"].to_numpy(),
        rows["_order_minor"].to_numpy(),
        np.zeros(count, np.int8),
        location,
        {},
        pa.nulls(count, pa.string()),
        np.zeros(count, np.bool_),
        waits=memo.stale,
        remembered=remembered,
        hidden=unset_of(pa.chunked_array([memo.hidden])),
    )


def _parted(memo: Memo, rows: pa.Table, columns: Sequence[str]) -> tuple[Memo, dict[str, Flags]]:
    """Give the memos of records without the columns that the recorded change said itself; and these, by column.

    Their values are kept nowhere (lakehouse.state.settling.said_here).
    """
    older = memo.older
    here = (older.major == rows["_order_major"].to_numpy()[older.row]) & ~older.linked
    here &= older.minor == rows["_order_minor"].to_numpy()[older.row]
    unkept = {name: np.zeros(len(rows), np.bool_) for name in columns if name != REST}
    for name, marks in unkept.items():
        marks[older.row[here & _named(older, name)]] = True
    return replace(memo, older=older.take(~here)), unkept


def _said_again(whole: Part, memo: Memo) -> list[Part]:
    """Give the later saying of versions that were said again; the stored row then stands for their beginning."""
    where = np.flatnonzero(memo.begin[0] != NONE)
    if not len(where):
        return []
    later = Part(
        whole.rows.take(pa.array(where)),
        whole.group[where],
        whole.major[where],
        whole.minor[where],
        whole.what[where],
        whole.location[where],
        {name: marks[where] for name, marks in whole.unset.items()},
        pa.nulls(len(where), pa.string()),
        np.zeros(len(where), np.bool_),
        remembered={name: positions[where] for name, positions in whole.remembered.items()},
        again=np.ones(len(where), np.bool_),
        said_at=memo.said_again_at[where],
    )
    whole.major, whole.minor = whole.major.copy(), whole.minor.copy()
    whole.major[where], whole.minor[where] = memo.begin[0][where], memo.begin[1][where]
    return [later]


def _cells(whole: Part, memo: Memo, pending: dict[str, Flags], columns: Sequence[str]) -> list[Part]:
    older = memo.older
    if not len(older.row):
        return []
    codes = pc.fill_null(pc.index_in(older.column, value_set=pa.array(columns, pa.string())), -1)
    cell = codes.to_numpy(zero_copy_only=False).astype(np.int32)
    waits = np.zeros(len(cell), np.bool_)
    for code, name in enumerate(columns):
        if name in pending:
            mine = cell == code
            waits[mine] = pending[name][older.row[mine]]
    return [
        Part(
            whole.rows.take(pa.array(older.row)),
            whole.group[older.row],
            older.major,
            older.minor,
            np.full(len(cell), CELL, np.int8),
            whole.location[older.row],
            {},
            memo.linked_from.take(pa.array(older.row)),
            older.linked,
            cell=cell,
            fallback=~waits,
        )
    ]


def _named(older: Older, name: str) -> Flags:
    marks: Flags = pc.equal(older.column, name).to_numpy(zero_copy_only=False).astype(np.bool_)
    return marks


def shaped_values(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Give rows of a batch or of a table in the shape that candidates have; null for what they lack."""
    if "_time" in rows.column_names:  # a record of a delete
        rows = rows.append_column("_source_time", rows["_time"])
    columns = [
        rows[f.name].cast(f.type) if f.name in rows.column_names else pa.nulls(len(rows), f.type) for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)

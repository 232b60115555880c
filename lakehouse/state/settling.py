"""What stored rows become of settled candidates: whether they change, what they remember, their columns. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping

import numpy as np
import pyarrow as pa

from lakehouse.groups import NONE, Flags, Ints
from lakehouse.state.candidates import NOWHERE, Candidates, Rows
from lakehouse.state.events import DEAD
from lakehouse.state.known import Known
from lakehouse.state.memo import Memo, gather
from lakehouse.state.waiting import Sources


def unchanged(c: Candidates, known: Known, where: Rows, sources: Sources) -> Flags:
    """Mark the stored candidates of which every column has the value, from the position, that is stored with them."""
    same = np.ones(len(where), np.bool_)
    for name, (owns, values) in sources.items():
        own, value = owns[where], values[where]
        elsewhere = (own != NOWHERE) & (own != where) & (c.what[own] != DEAD)
        position = np.stack([np.where(elsewhere, c.major[own], NONE), np.where(elsewhere, c.minor[own], NONE)], axis=1)
        stored = known.remembered[name][where] if name in known.remembered else np.full_like(position, NONE)
        same &= (position == stored).all(axis=1) & ((value == own) | (value == NOWHERE))
    return same


def said_here(c: Candidates, sources: Sources) -> Sources:
    """Give the sources for records of deletes: what the change said by which a row left the filter is kept nowhere."""
    made = {}
    for name, (own, value) in sources.items():
        says = c.weak & ~c.silent(name)
        made[name] = np.where(says, np.arange(len(c)), own), np.where(says, NOWHERE, value)
    return made


def memo_of(  # noqa: PLR0917 (all that a memo holds)
    c: Candidates, known: Known, where: Rows, stale: Ints, sources: Sources, hidden: pa.ListArray | None = None
) -> Memo:
    """Give what rows must remember: columns that came with earlier changes, links, and what waits (stale: n x 2).

    The sources are those of the rows, in their order. A delete that is the source of its own column said it (see
    said_here): that is remembered, too.
    """
    older = {}
    from_text = np.full(len(where), NOWHERE, np.intp)
    for name, (own, _) in sources.items():
        link = c.linked & ((c.cell >= 0) | c.unset.get(name, np.zeros(len(c), np.bool_)))
        there = (own != NOWHERE) & (c.what[own] != DEAD)
        said_here = (own == where) & (c.what[where] == DEAD)
        rows = np.flatnonzero((there & ((own != where) | link[own])) | said_here)
        source = own[rows]
        from_text[rows[link[source]]] = source[link[source]]
        older[name] = (rows.astype(np.int64), c.major[source], c.minor[source], link[source])
    texts = known.link_texts.take(pa.array(np.maximum(from_text, 0), mask=from_text < 0))
    return Memo.of(stale, texts, gather(older), hidden)


def taken(rows: pa.Table, where: Rows, schema: pa.Schema, told: Container[str] = ()) -> pa.Table:
    """Give rows at places, with those of a table's columns that they have and that are not told otherwise."""
    names = [name for name in schema.names if name in rows.column_names and name not in told]
    at = pa.array(where)

    def column(name: str) -> pa.ChunkedArray | pa.Array:
        whole = rows[name]
        return pa.nulls(len(where), whole.type) if whole.null_count == len(whole) else whole.take(at)

    return pa.table([column(name) for name in names], pa.schema([rows.schema.field(name) for name in names]))


def shaped(rows: pa.Table, schema: pa.Schema, told: Mapping[str, object]) -> pa.Table:
    """Give rows in a table's shape: told columns first, then their own, null for the others."""
    columns = []
    for field in schema:
        if field.name in told:
            column = told[field.name]
            columns.append(column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column, field.type))
        elif field.name in rows.column_names:
            columns.append(rows[field.name])
        else:
            columns.append(pa.nulls(len(rows), field.type))
    return pa.Table.from_arrays(columns, schema=schema)

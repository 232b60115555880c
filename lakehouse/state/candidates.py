"""All that is known of some keys, stored and new, in the order of the source: what every table's state follows from.

A candidate says that a row is so (ALIVE), that it is gone (DEAD), that one column was so (CELL), or that a change waits
in quarantine (NOTE). A row's column has the value of the last candidate before it that says it. That is the whole law:
it does not depend on the order of arrival, nor on what was known when. Pure.

Where the last candidate is a DEAD, the value has not arrived yet. Where it is the create of a key change that does not
say the column (a link), the value is the one that the row of the key before had at its delete; that delete is found
among the candidates, or else the value stored with the link counts, or else it has not arrived yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse.groups import Flags, Ints
from lakehouse.state.columns import REST
from lakehouse.state.events import ALIVE, CELL, DEAD, NOTE

Rows = npt.NDArray[np.intp]
NEW = -1  # the location of a candidate that is not stored
NOWHERE = -1  # the source of a value that has not arrived
DEEPEST = 1_000  # key changes in a row


@dataclass(frozen=True)
class Candidates:
    """Candidates in any order. Cells hold a copy of their stored row, of which one column counts."""

    rows: pa.Table
    group: Ints  # the key
    major: Ints
    minor: Ints
    what: npt.NDArray[np.int8]
    location: Ints  # of stored rows; NEW
    unset: Mapping[str, Flags]  # column -> this ALIVE candidate does not say it
    cell: npt.NDArray[np.int32]  # of a CELL: which column, an index in `columns`; -1
    linked: Flags  # of a CELL: its value came over a key change; of an ALIVE: the create of a key change
    fallback: Flags  # of a linked CELL: it holds a value
    columns: Sequence[str]  # that changes may leave out; REST for all others where deletes keep their row

    def __len__(self) -> int:
        return len(self.group)

    @cached_property
    def order(self) -> Rows:
        """Give the candidates by key and position; of equal ones cells first, then stored rows."""
        kind = np.where(self.what == CELL, 0, np.where(self.location != NEW, 1, 2))
        order: Rows = np.lexsort((kind, self.minor, self.major, self.group))
        return order

    @cached_property
    def counts(self) -> Flags:
        """Mark the rows and deletes that count: a change that came again, or is stored already, counts once."""
        order = self.order[np.isin(self.what[self.order], (ALIVE, DEAD))]
        again = np.zeros(len(order), np.bool_)
        again[1:] = (
            (self.group[order][1:] == self.group[order][:-1])
            & (self.major[order][1:] == self.major[order][:-1])
            & (self.minor[order][1:] == self.minor[order][:-1])
        )
        marks = np.zeros(len(self), np.bool_)
        marks[order[~again]] = True
        return marks

    @cached_property
    def last(self) -> Rows:
        """Give per group (0, 1, ...) the last row or delete, -1 where there is none."""
        order = self.order[self.counts[self.order]]
        found = np.full(int(self.group.max(initial=-1)) + 1, -1, np.intp)
        found[self.group[order]] = order  # the last of several assignments stays
        return found

    def sources(self, column: str, links: Rows) -> tuple[Rows, Rows]:
        """Give for each candidate which one says the column (in its own key), and where the value stands.

        links: for each link, the candidate that is the delete of the key before, or -1. NOWHERE: has not arrived.
        """
        rows = self.counts & (self.what == ALIVE)
        silent = self.unset.get(column, np.zeros(len(self), np.bool_)) if column != REST else ~rows
        own_cell = self.cell == (self.columns.index(column) if column in self.columns else -2)
        says = (rows & ~silent) | own_cell
        link = (rows & silent & self.linked & (self.location == NEW) & (column != REST)) | (own_cell & self.linked)
        barrier = says | link | (self.counts & (self.what == DEAD))
        before = self._last_before(barrier)
        own = np.where(rows & (says | link), np.arange(len(self)), before)
        own = np.where(own_cell, np.arange(len(self)), own)
        ends = self.counts & (self.what == DEAD)
        return own, self._followed(own, link, ends, links)

    def _last_before(self, marks: Flags) -> Rows:
        """Give for each candidate the last marked one before it in its group."""
        order = self.order
        at = np.arange(len(order))
        last = np.maximum.accumulate(np.where(marks[order], at, -1))
        before = np.concatenate(([-1], last[:-1]))
        group = self.group[order]
        starts = np.maximum.accumulate(np.where(np.concatenate(([True], group[1:] != group[:-1])), at, 0))
        found = np.full(len(order), NOWHERE, np.intp)
        inside = before >= starts
        found[order[inside]] = order[before[inside]]
        return found

    def _followed(self, own: Rows, link: Flags, ends: Flags, links: Rows) -> Rows:
        """Follow sources over key changes to where the value stands."""
        value = own.copy()
        for _ in range(DEEPEST):
            there = value >= 0
            leads = np.zeros(len(value), np.bool_)
            leads[there] = link[value[there]]
            leads[leads] &= links[value[leads]] >= 0
            if not leads.any():
                break
            value[leads] = own[links[value[leads]]]
        there = value >= 0
        lost = np.zeros(len(value), np.bool_)
        lost[there] = ends[value[there]] | (link[value[there]] & ~self.fallback[value[there]])
        value[lost] = NOWHERE
        return value

    def stale(self, stored: tuple[Ints, Ints], of: Flags | None = None) -> tuple[Ints, Ints]:
        """Give per group the newest position of a change that waits; stored: per candidate, what its memo says.

        of: the only candidates to ask.
        """
        waits = self.what == NOTE
        major, minor = np.where(waits, self.major, stored[0]), np.where(waits, self.minor, stored[1])
        order = np.lexsort((minor, major, self.group))
        order = order if of is None else order[of[order]]
        top = np.full((int(self.group.max(initial=-1)) + 1, 2), np.iinfo(np.int64).min, np.int64)
        top[self.group[order]] = np.stack([major[order], minor[order]], axis=1)
        return top[:, 0], top[:, 1]


def assembled(rows: pa.Table, base: Rows, values: Mapping[str, Rows]) -> pa.Table:
    """Give one row per base candidate, with the named columns from elsewhere (NOWHERE: null)."""
    table = rows.take(pa.array(base))
    for name, source in values.items():
        if (source != base).any():
            taken = rows[name].take(pa.array(np.maximum(source, 0), mask=source < 0))
            table = table.set_column(table.schema.get_field_index(name), rows.schema.field(name), taken)
    return table

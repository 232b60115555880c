"""All that is known of some keys, stored and new, in the order of the source: what every table's state follows from.

A candidate says that a row is so (ALIVE), that it is gone (DEAD), that one column was so (CELL), or that a change waits
in quarantine (NOTE). A row's column has the value of the last candidate before it that says it. That is the whole law:
it does not depend on the order of arrival, nor on what was known when. Pure.

Where the last candidate is a DEAD, the value has not arrived yet. Where it is the create of a key change that does not
say the column (a link), the value is the one that the row of the key before had at its delete; that delete is found
among the candidates, or else the value stored with the link counts, or else it has not arrived yet.

A weak DEAD is a row that has left the filter, by a change whose values are not kept: what that change left out is what
it was before, should the row come back.
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
from lakehouse.state.events import ALIVE, CELL, DEAD

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
    unset: Mapping[str, Flags]  # column -> this ALIVE candidate, or the change behind this weak DEAD, does not say it
    cell: npt.NDArray[np.int32]  # of a CELL: which column, an index in `columns`; -1
    linked: Flags  # of a CELL: its value came over a key change; of an ALIVE: the create of a key change
    fallback: Flags  # of a linked CELL: it holds a value
    weak: Flags  # of a DEAD: the row has left the filter
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
        rows, ends = self.counts & (self.what == ALIVE), self.counts & (self.what == DEAD)
        silent = self.silent(column) if column != REST else ~rows
        own_cell = self._cells(column)
        says, link = (rows & ~silent) | own_cell, self.link(column)
        before = self._last_before(says | link | (ends & ~(self.silent(column) & self.weak)))
        own = np.where((rows & (says | link)) | own_cell, np.arange(len(self)), before)
        return own, self._followed(own, link, ends, links)

    def silent(self, column: str) -> Flags:
        """Mark the candidates that do not say a column."""
        return self.unset.get(column, np.zeros(len(self), np.bool_))

    def link(self, column: str) -> Flags:
        """Mark the candidates whose value of a column came over a key change."""
        create = self.counts & (self.what == ALIVE) & self.linked & (self.location == NEW)
        marks: Flags = (create & self.silent(column) & (column != REST)) | (self._cells(column) & self.linked)
        return marks

    def _cells(self, column: str) -> Flags:
        marks: Flags = self.cell == (self.columns.index(column) if column in self.columns else -2)
        return marks

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


def assembled(rows: pa.Table, base: Rows, values: Mapping[str, Rows]) -> pa.Table:
    """Give one row per base candidate, with the named columns from elsewhere (NOWHERE: null)."""
    table = rows.take(pa.array(base))
    for name, source in values.items():
        if (source != base).any():
            taken = rows[name].take(pa.array(np.maximum(source, 0), mask=source < 0))
            table = table.set_column(table.schema.get_field_index(name), rows.schema.field(name), taken)
    return table

"""Changes that wait in quarantine: which rows lack one, and which columns hold an older value because of one. Pure.

A change that waits concerns its key's row until the row says again what it said. A key change takes values over, and
with them what is hidden in them: where the row of the key before lacked a column's newer value, the row after lacks it
too, as if a change of its own waited at the position of the key change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from lakehouse.groups import NONE, Flags, Ints
from lakehouse.order import stands_above
from lakehouse.state.candidates import DEEPEST, NEW, Candidates, Rows
from lakehouse.state.columns import REST
from lakehouse.state.events import ALIVE, CELL, DEAD

Sources = Mapping[str, tuple[Rows, Rows]]  # column -> per candidate, which one says it and where the value stands
_HIGHEST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Waits:
    """What candidates tell of changes that wait."""

    major: Ints  # position of the newest one, NONE where there is none
    minor: Ints
    hidden: Mapping[str, Flags]  # column -> candidates that wait and say it, or tell of such a one

    def equal(self, rows: Rows, position: Ints, hidden: Mapping[str, Flags]) -> Flags:
        """Mark the candidates (-1: none) that tell of a position (n x 2, NONE), and of no other columns than these."""
        same: Flags = (rows >= 0) & (self.major[rows] == position[:, 0]) & (self.minor[rows] == position[:, 1])
        nothing = np.zeros(len(rows), np.bool_)
        for name in self.hidden.keys() | hidden.keys():
            before = self.hidden[name][rows] if name in self.hidden else nothing
            same &= before == hidden.get(name, nothing)
        return same

    def without(self, marks: Flags) -> Waits:
        """Give the same, with nothing told by some candidates."""
        hidden = {name: flags & ~marks for name, flags in self.hidden.items()}
        return Waits(np.where(marks, NONE, self.major), np.where(marks, NONE, self.minor), hidden)


def carried(c: Candidates, waits: Waits, sources: Sources, links: Rows) -> Waits:
    """Give what waits with what key changes take over.

    What stored rows say of that is left out first, where the key before is known: it may have been told since.
    """
    waits = waits.without(_taken_over(c, waits, links))
    for _ in range(DEEPEST):
        found = {}
        for name, (own, _) in sources.items():
            if name == REST:
                continue
            link = np.flatnonzero(c.link(name) & (links >= 0))
            hides = link[_hides(c, waits, name, own, links[link], _position(c, links[link]))]
            found[name] = hides[~waits.hidden[name][hides]] if name in waits.hidden else hides
        if not any(len(rows) for rows in found.values()):
            break
        waits = _with(c, waits, found)
    return waits


def lacking(c: Candidates, waits: Waits, sources: Sources, rows: Rows) -> tuple[Ints, dict[str, Flags]]:
    """Give for rows that are the last of their keys the newest change that each lacks (n x 2, NONE), and its columns.

    That is one that waits above the row, or below it and said a column that no change has said since.
    """
    newest, hidden = _lacks(c, waits, sources, rows, np.full((len(rows), 2), _HIGHEST))
    alive = c.what[rows] == ALIVE
    waiting = alive & np.logical_or.reduce([stands_above(newest, _position(c, rows)), *hidden.values()])
    return _kept(newest, waiting), {name: marks & alive for name, marks in hidden.items()}


def lacked(c: Candidates, waits: Waits, sources: Sources, ends: Rows) -> tuple[Ints, dict[str, Flags]]:
    """Give the same for rows that are gone: what each lacked at its end, or may be said to lack when it comes back.

    A row that has left the filter may come back before anything else is said of it: what waits since its end counts.
    """
    until = _position(c, ends)
    weak = np.flatnonzero(c.weak[ends])
    until[weak] = _next(c)[ends[weak]]
    newest, hidden = _lacks(c, waits, sources, ends, until)
    return _kept(newest, np.logical_or.reduce([np.zeros(len(ends), np.bool_), *hidden.values()])), hidden


def _lacks(c: Candidates, waits: Waits, sources: Sources, rows: Rows, until: Ints) -> tuple[Ints, dict[str, Flags]]:
    """Give the newest change that waits below a position for each row (n x 2, NONE), and the columns hidden there."""
    newest = _newest(c, waits, np.ones(len(c), np.bool_), c.group[rows], until)
    said = (name for name, marks in waits.hidden.items() if name in sources and marks.any())
    return newest, {name: _hides(c, waits, name, sources[name][0], rows, until) for name in said}


def _hides(c: Candidates, waits: Waits, name: str, own: Rows, rows: Rows, until: Ints) -> Flags:  # noqa: PLR0917
    """Mark the rows whose column a change said that waits below a position, and none since."""
    if name not in waits.hidden:
        return np.zeros(len(rows), np.bool_)
    newest = _newest(c, waits, waits.hidden[name], c.group[rows], until)
    says = own[rows]
    said = (says >= 0) & (c.what[says] != DEAD)
    at = _position(c, says)
    same = (newest == at).all(axis=1) & c.link(name)[says]  # taken over by the key change itself
    hides: Flags = said & (newest[:, 0] != NONE) & (stands_above(newest, at) | same)
    return hides


def _newest(c: Candidates, waits: Waits, marks: Flags, group: Ints, until: Ints) -> Ints:
    """Give the newest position below others that marked candidates of the same groups tell of (n x 2, NONE)."""
    told = np.flatnonzero(marks & (waits.major != NONE))
    found = np.full((len(group), 2), NONE, np.int64)
    if not len(told):
        return found
    asked = np.concatenate([np.zeros(len(told), np.bool_), np.ones(len(group), np.bool_)])
    of = np.concatenate([c.group[told], group])
    position = np.concatenate([np.stack([waits.major[told], waits.minor[told]], axis=1), until])
    order = np.lexsort((~asked, position[:, 1], position[:, 0], of))  # one that stands at the bound is not below it
    at = np.arange(len(order))
    last = np.maximum.accumulate(np.where(asked[order], -1, at))
    mine = (last >= 0) & asked[order] & (of[order][last] == of[order])
    found[order[mine] - len(told)] = position[order[last[mine]]]
    return found


def _next(c: Candidates) -> Ints:
    """Give for each candidate that counts the position of the next such one of its key (n x 2)."""
    order = c.order[c.counts[c.order]]
    found = np.full((len(c), 2), _HIGHEST)
    same = c.group[order][1:] == c.group[order][:-1]
    found[order[:-1][same]] = _position(c, order[1:][same])
    return found


def _taken_over(c: Candidates, waits: Waits, links: Rows) -> Flags:
    """Mark the stored rows that tell of a change that waits at the position of their own key change, if it is known."""
    marks = np.zeros(len(c), np.bool_)
    cells = np.flatnonzero((c.what == CELL) & c.linked & (links >= 0))
    known = {(int(c.location[i]), int(c.major[i]), int(c.minor[i])) for i in cells}  # key changes are rare
    for i in np.flatnonzero((waits.major != NONE) & (c.location != NEW)) if known else ():
        marks[i] = (int(c.location[i]), int(waits.major[i]), int(waits.minor[i])) in known
    return marks


def _with(c: Candidates, waits: Waits, found: Mapping[str, Rows]) -> Waits:
    """Let candidates tell, column by column, of a change that waits at their own position."""
    major, minor, hidden = waits.major.copy(), waits.minor.copy(), dict(waits.hidden)
    for name, rows in found.items():
        hidden[name] = hidden[name].copy() if name in hidden else np.zeros(len(c), np.bool_)
        hidden[name][rows] = True
        major[rows], minor[rows] = c.major[rows], c.minor[rows]
    return replace(waits, major=major, minor=minor, hidden=hidden)


def _position(c: Candidates, rows: Rows) -> Ints:
    return np.stack([c.major[rows], c.minor[rows]], axis=1)


def _kept(position: Ints, marks: Flags) -> Ints:
    kept: Ints = np.where(marks[:, None], position, NONE)
    return kept

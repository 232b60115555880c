"""Where the rows of each key lie, and at which position they stand: a hint that is rebuilt from the table at will.

An entry is (key, position, location). Entries stand in runs, each sorted by key; a probe asks all runs. Runs of similar
size are merged, so that a commit costs the same whatever the table's size. Entries of rows that are gone stay: whoever
asks learns from the table's vectors which rows are alive.
Memory: 32 bytes an entry, 40 where keys are hashed; beyond a budget in mapped files (lakehouse.merge.index_memory).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lakehouse.merge.index_memory import SHARED, IndexMemory
from lakehouse.merge.keys import Ints, Keys, concat_keys
from lakehouse.merge.locations import POSITION, POSITION_BITS

_LOWEST = -(1 << 63)
MOVED_AT_ONCE = 1 << 20  # entries, whose locations are followed in one go
GROWTH = 4  # a run is merged into the one before it unless that one is so many times larger
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Entries:
    """Entries, one per row of each array."""

    keys: Keys
    major: Ints
    minor: Ints
    location: Ints  # file number << 32 | row

    def __len__(self) -> int:
        return len(self.location)

    @property
    def nbytes(self) -> int:
        """Give the bytes of all arrays."""
        check = 0 if self.keys.check is None else self.keys.check.nbytes
        return check + self.keys.low.nbytes + self.major.nbytes + self.minor.nbytes + self.location.nbytes

    def take(self, where: Rows | npt.NDArray[np.bool_] | slice) -> Entries:
        """Give some of the entries."""
        return Entries(self.keys.take(where), self.major[where], self.minor[where], self.location[where])


@dataclass(frozen=True)
class Hits:
    """What a probe found: for each entry, which of the asked keys it belongs to."""

    asked: Rows
    entries: Entries

    def __len__(self) -> int:
        return len(self.asked)

    def take(self, where: Rows | npt.NDArray[np.bool_]) -> Hits:
        """Give some of the hits."""
        return Hits(self.asked[where], self.entries.take(where))


class _Moves:
    """Where rows of some files went, ready to be asked for many locations."""

    def __init__(self, old: Ints, new: Ints) -> None:
        numbers, positions = old >> POSITION_BITS, old & POSITION
        self.files = frozenset(np.unique(numbers).tolist())
        self._counts = np.zeros(int(numbers.max()) + 2, np.int64)  # by file: positions known; the last for all above
        np.maximum.at(self._counts, numbers, positions + 1)
        self._starts = np.cumsum(self._counts) - self._counts
        self._to = np.full(int(self._counts.sum()), -1, np.int64)  # -1: a row that went nowhere
        self._to[self._starts[numbers] + positions] = new

    def followed(self, locations: Ints, flags: int) -> tuple[Ints, set[int]]:
        """Give the locations, with the new ones of rows that moved, flags kept; the array itself where none did.

        Also gives the numbers of the files that the rows are in now.
        """
        made, reached = locations, set[int]()
        for start in range(0, len(locations), MOVED_AT_ONCE):
            part = locations[start : start + MOVED_AT_ONCE]
            plain = part & ~flags
            numbers = np.minimum(plain >> POSITION_BITS, len(self._counts) - 1)
            moved = np.flatnonzero((plain & POSITION) < self._counts[numbers])
            to = self._to[self._starts[numbers[moved]] + (plain[moved] & POSITION)]
            moved, to = moved[to >= 0], to[to >= 0]
            if len(moved):
                made = locations.copy() if made is locations else made
                made[start + moved] = to | (part[moved] & flags)
                reached |= set(np.unique(to >> POSITION_BITS).tolist())
        return made, reached


class KeyIndex:
    """Gives the entries of keys. With `versions`, a key has one entry per position; otherwise the newest one counts."""

    def __init__(self, *, versions: bool = False, memory: IndexMemory = SHARED) -> None:
        self._versions = versions
        self._memory = memory
        self._runs: list[Entries] = []
        self._files: list[set[int] | None] = []  # of each run: in which files its rows are, at most; None: not known

    def __len__(self) -> int:
        return sum(len(run) for run in self._runs)

    @property
    def nbytes(self) -> int:
        """Give the bytes of all runs."""
        return sum(run.nbytes for run in self._runs)

    @property
    def runs(self) -> Sequence[Entries]:
        """Give the runs, oldest first: what a snapshot holds."""
        return self._runs

    def put(self, entries: Entries) -> None:
        """Add entries; each takes the place of an older one of its key, or with `versions` of its key and position."""
        if not len(entries):
            return
        run = entries.take(np.argsort(entries.keys.low, kind="stable"))
        order = self._order(run.keys, run.major, run.minor)
        run = run if order is None else run.take(order)
        if not self._merges_with(run):
            run = self._placed(run)
        while self._merges_with(run):
            run = self._merged(self._runs.pop(), run)
            self._files.pop()
        self._runs.append(run)
        self._files.append(None)

    def _merges_with(self, newer: Entries) -> bool:
        return bool(self._runs) and len(self._runs[-1]) < GROWTH * len(newer)

    def _placed(self, run: Entries) -> Entries:
        placed = self._memory.placed
        check = None if run.keys.check is None else placed(run.keys.check)
        return Entries(Keys(placed(run.keys.low), check), *map(placed, (run.major, run.minor, run.location)))

    def restore(self, runs: Sequence[Entries]) -> None:
        """Take over the runs of a snapshot."""
        self._runs = list(runs)
        self._files = [None] * len(runs)

    def move(self, old: Ints, new: Ints, flags: int) -> None:
        """Follow rows to other locations: bits of a location that are flags stay.

        Costs one pass over the runs that hold rows of the files that rows moved from.

        The arrays of runs are never changed in place: somebody may be writing them down.
        """
        if not len(old):
            return
        moves = _Moves(old, new)
        for place, run in enumerate(self._runs):
            files = self._files[place]
            if files is None:
                files = _files_of(run.location, flags)
            if files & moves.files:
                location, reached = moves.followed(run.location, flags)
                if location is not run.location:
                    self._runs[place] = replace(run, location=self._memory.placed(location))
                files |= reached
            self._files[place] = files

    def last(self, keys: Keys) -> Hits:
        """Give the entry that counts of each key that has one, by asked key: with `versions` the highest."""
        best = Entries(keys, *(np.full(len(keys), _LOWEST, np.int64) for _ in range(3)))
        found = np.zeros(len(keys), np.bool_)
        for run in self._runs:  # of equal positions the newest run's counts
            at = np.searchsorted(run.keys.low, keys.low, side="right") - 1
            hit = np.flatnonzero((at >= 0) & (run.keys.low[at] == keys.low))
            rows = at[hit]
            if run.keys.check is not None and keys.check is not None:
                equal = run.keys.check[rows] == keys.check[hit]
                if not equal.all():  # two keys share half of their numbers: look at all entries
                    return self._last_of_all(keys)
            major, minor = run.major[rows], run.minor[rows]
            if self._versions:
                wins = (major > best.major[hit]) | ((major == best.major[hit]) & (minor >= best.minor[hit]))
                hit, rows, major, minor = hit[wins], rows[wins], major[wins], minor[wins]
            best.major[hit], best.minor[hit], best.location[hit] = major, minor, run.location[rows]
            found[hit] = True
        where = np.flatnonzero(found)
        return Hits(where, best.take(where))

    def _last_of_all(self, keys: Keys) -> Hits:
        hits = self.find(keys)
        last = np.ones(len(hits), np.bool_)
        last[:-1] = hits.asked[1:] != hits.asked[:-1]
        return hits.take(last)

    def find(self, keys: Keys) -> Hits:
        """Give the entries of the keys that count, by asked key, then by position."""
        found = [hits for run in self._runs if len(hits := _probe(run, keys))]
        if not found:
            return Hits(np.zeros(0, np.intp), _none(keys))
        age = np.concatenate([np.full(len(hits), number, np.int64) for number, hits in enumerate(found)])
        asked = np.concatenate([hits.asked for hits in found])
        entries = _concat([hits.entries for hits in found])
        by = (age, entries.minor, entries.major, asked) if self._versions else (age, asked)
        order = np.lexsort(by)
        asked, entries = asked[order], entries.take(order)
        return Hits(asked, entries).take(_last_of_each(asked[1:] != asked[:-1], entries, self._versions))

    def below(self, major: int, minor: int) -> Entries:
        """Give the entries that count and stand below a position; asks every entry."""
        if not self._runs:
            return _none(Keys(np.zeros(0, np.int64), None))
        merged = self._runs[0]
        for run in self._runs[1:]:
            merged = self._merged(merged, run)
        self._runs, self._files = [merged], [None]
        lower = (merged.major < major) | ((merged.major == major) & (merged.minor < minor))
        return merged.take(lower)

    def unflagged(self, flag: int, major: int) -> Entries:
        """Give the entries, also those whose place others took, at or below a position whose location lacks a flag."""
        wanted = [(run.major <= major) & ((run.location & flag) == 0) for run in self._runs]
        parts = [run.take(np.flatnonzero(marks)) for run, marks in zip(self._runs, wanted, strict=True)]
        return _concat(parts) if parts else _none(Keys(np.zeros(0, np.int64), None))

    def _merged(self, older: Entries, newer: Entries) -> Entries:
        """Give two runs as one, without the entries whose place others took."""
        place = np.searchsorted(older.keys.low, newer.keys.low, side="right")
        of_newer = place + np.arange(len(newer))
        of_older = np.ones(len(older) + len(newer), np.bool_)
        of_older[of_newer] = False

        def woven(old: Ints, new: Ints) -> Ints:
            whole = np.empty(len(of_older), np.int64)
            whole[of_newer], whole[of_older] = new, old
            return whole

        low, check = woven(older.keys.low, newer.keys.low), None
        if older.keys.check is not None and newer.keys.check is not None:
            check = woven(older.keys.check, newer.keys.check)
        keys, major, minor = Keys(low, check), older.major, older.minor
        if self._versions:
            major, minor = woven(older.major, newer.major), woven(older.minor, newer.minor)
        order = self._order(keys, major, minor)
        if order is not None:
            keys = keys.take(order)
            major, minor = (major[order], minor[order]) if self._versions else (major, minor)
        keep = _last_of_each(_changes(keys), Entries(keys, major, minor, low), self._versions)
        chosen: Rows | npt.NDArray[np.bool_] | None = None if keep.all() else keep
        if order is not None:
            chosen = order[keep]
        del keys, major, minor

        def placed(whole: Ints) -> Ints:
            return self._memory.placed(whole if chosen is None else whole[chosen])

        low, check = placed(low), None if check is None else placed(check)  # one by one: the whole may be large
        return Entries(
            Keys(low, check),
            placed(woven(older.major, newer.major)),
            placed(woven(older.minor, newer.minor)),
            placed(woven(older.location, newer.location)),
        )

    def _order(self, keys: Keys, major: Ints, minor: Ints) -> Rows | None:
        """Give how entries sorted by half of the keys' numbers stand with each key's together and in order.

        That is by position with `versions`, else from old to new; None where they stand so, as a rule they do.
        """
        same = keys.low[1:] == keys.low[:-1]
        wrong = np.zeros(len(same), np.bool_)
        if self._versions:
            rising = (major[1:] == major[:-1]) & (minor[1:] >= minor[:-1])
            wrong = same & ~(rising | (major[1:] > major[:-1]))
        if keys.check is not None:
            wrong |= same & (keys.check[1:] != keys.check[:-1])
        if not wrong.any():
            return None
        group = np.concatenate(([0], np.cumsum(~same)))
        where = np.flatnonzero(np.isin(group, group[1:][wrong]))
        some = keys.take(where)
        check = np.zeros(len(where), np.int64) if some.check is None else some.check
        age = np.arange(len(where))
        by = (age, minor[where], major[where]) if self._versions else (age,)
        order = np.arange(len(keys))
        order[where] = where[np.lexsort((*by, check, some.low))]
        return order


def _files_of(locations: Ints, flags: int) -> set[int]:
    """Give the numbers of the files that locations are in."""
    found = set[int]()
    for start in range(0, len(locations), MOVED_AT_ONCE):
        numbers = (locations[start : start + MOVED_AT_ONCE] & ~flags) >> POSITION_BITS
        found |= set(np.flatnonzero(np.bincount(numbers)).tolist())
    return found


def _changes(keys: Keys) -> npt.NDArray[np.bool_]:
    """Mark where the next key is another; equal ones stand together."""
    new: npt.NDArray[np.bool_] = keys.low[1:] != keys.low[:-1]
    if keys.check is not None:
        new |= keys.check[1:] != keys.check[:-1]
    return new


def _last_of_each(differs: npt.NDArray[np.bool_], entries: Entries, versions: bool) -> npt.NDArray[np.bool_]:
    """Mark the last entry of each group, or of each group and position; differs: where the next group begins."""
    last = np.ones(len(differs) + 1, np.bool_)
    last[:-1] = differs
    if versions:
        last[:-1] |= (entries.major[1:] != entries.major[:-1]) | (entries.minor[1:] != entries.minor[:-1])
    return last


def _probe(run: Entries, keys: Keys) -> Hits:
    """Give the entries of one run that belong to the keys."""
    first = np.searchsorted(run.keys.low, keys.low, side="left")
    at = np.minimum(first, len(run) - 1)
    hit = np.flatnonzero(run.keys.low[at] == keys.low)
    if not len(hit):
        return Hits(hit, run.take(slice(0, 0)))
    first = first[hit]
    count = np.searchsorted(run.keys.low, keys.low[hit], side="right") - first
    asked = np.repeat(hit, count)
    rows = np.repeat(first - np.cumsum(count) + count, count) + np.arange(int(count.sum()))
    if run.keys.check is not None and keys.check is not None:
        equal = run.keys.check[rows] == keys.check[asked]
        asked, rows = asked[equal], rows[equal]
    return Hits(asked, run.take(rows))


def _concat(parts: Sequence[Entries]) -> Entries:
    return Entries(
        concat_keys([part.keys for part in parts]),
        np.concatenate([part.major for part in parts]),
        np.concatenate([part.minor for part in parts]),
        np.concatenate([part.location for part in parts]),
    )


def concat_hits(one: Hits, other: Hits) -> Hits:
    """Give two probes' hits in one."""
    return Hits(np.concatenate([one.asked, other.asked]), _concat([one.entries, other.entries]))


def _none(like: Keys) -> Entries:
    nothing = np.zeros(0, np.int64)
    return Entries(Keys(nothing, None if like.check is None else nothing), nothing, nothing, nothing)

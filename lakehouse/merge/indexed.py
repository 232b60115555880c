"""A merge-on-read table with the index of its keys: find, read and change rows by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from lakehouse.anchor import AnchorState
from lakehouse.groups import Flags, Ints, Partition
from lakehouse.lanes import WHOLE, Lane
from lakehouse.merge.compaction import Compacted, compact
from lakehouse.merge.index import Entries, Hits, KeyIndex, concat_hits
from lakehouse.merge.index_snapshot import IndexSnapshots
from lakehouse.merge.kept_index import KeptIndex
from lakehouse.merge.keys import Keys
from lakehouse.merge.locations import POSITION, POSITION_BITS, by_file
from lakehouse.merge.merge_table import MergeTable

REMEMBERS = 1 << 62  # in an entry's location: the row has a memo, and must be read before its key is judged
CLOSED = 1 << 61  # the row is a version that another has followed, or a window that the watermark has passed
FLAGS = REMEMBERS | CLOSED
_HIGHEST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Change:
    """What one commit does to a table: rows to append, locations to mark deleted."""

    append: pa.Table
    remove: Ints

    @property
    def empty(self) -> bool:
        """Whether nothing changes."""
        return not len(self.append) and not len(self.remove)


class EntriesOf(Protocol):
    """Tells what an index says of stored rows."""

    @property
    def columns(self) -> Sequence[str]:
        """The columns that are read for it."""

    def keys(self, rows: pa.Table) -> Keys:
        """Give the rows' keys."""

    def entries(self, rows: pa.Table, locations: Ints) -> Entries:
        """Give the rows' entries; flags of REMEMBERS and CLOSED are set in their locations."""


class IndexedTable:
    """Gives the rows of keys, and commits changes; the index is a hint that follows the table.

    lane: whose keys are indexed. listens: a column whose values in others' files are kept in `heard`.
    """

    def __init__(
        self,
        table: MergeTable,
        told: EntriesOf,
        *,
        versions: bool,
        snapshots: IndexSnapshots | None = None,
        lane: Lane = WHOLE,
        listens: str | None = None,
    ) -> None:
        self.table = table
        self.heard: list[str] = []
        self._lane = lane
        self._listens = listens
        self.index = KeyIndex(versions=versions)
        self._versions = versions
        self._told = told
        self._indexed = [*told.columns, *([listens] if listens else [])]
        self._numbers: set[int] = set()
        self._dead_rows: dict[int, Flags] = {}  # file number -> which of its rows are deleted
        self.kept = KeptIndex(table, self.index, snapshots) if snapshots else None
        self._begun = False

    def follow(self) -> None:
        """Take in what is in the table and not yet in the index."""
        if not self._begun and self.kept:
            self._numbers |= self.kept.restore()
        self._begun = True
        news = self.table.news()
        for number in (*news.gone, *news.changed):
            self._dead_rows.pop(number, None)
        # Not by the news alone: what a scan that failed did not enter is still to be entered.
        for number in sorted(self.table.files().keys() - self._numbers):
            if not self._of_another_lane(number):
                self._scan(number)
            self._numbers.add(number)

    def count(self) -> int:
        """Give how many rows are alive, of the lane's keys."""
        if not self._lane.alone:
            return len(self.below(_HIGHEST, _HIGHEST))
        files = self.table.files()
        return sum(self.table.row_count(number) - file.dead for number, file in files.items())

    def _of_another_lane(self, number: int) -> bool:
        written_by = self.table.files()[number].lane
        return written_by is not None and written_by.of == self._lane.of and written_by != self._lane

    def _scan(self, number: int) -> None:
        """Enter the rows of a file that are alive, and of the lane."""
        rows = self.table.scan(number, self._indexed)
        dead = self._dead(number)
        wanted = None if dead is None else ~dead
        if self._listens:
            said = rows[self._listens] if wanted is None else rows[self._listens].filter(pa.array(wanted))
            self.heard += said.drop_null().to_pylist()
        if not self._lane.alone:
            own = self._lane.owns(self._told.keys(rows))
            wanted = own if wanted is None else wanted & own
        self._enter(rows, np.arange(len(rows)) | (number << POSITION_BITS), wanted)

    def maintain(self, budget: float) -> Compacted:
        """Compact the table for about so many seconds; the index follows. Raises as lakehouse.merge.compaction does."""
        self.follow()
        done = compact(self.table, budget)
        self._move(done.old, done.new, self._numbers)
        live = self.table.files().keys()
        self._numbers &= live
        self._dead_rows = {number: marks for number, marks in self._dead_rows.items() if number in live}
        return done

    def keep(self) -> None:
        """Have a snapshot of the index written, beside whatever goes on, when it is worth it.

        Raises what the writing of the one before met.
        """
        if self.kept:
            self.kept.write_if_due(self._numbers)

    def last(self, keys: Keys) -> Hits:
        """Give the entry of each key that counts and whose row is alive."""
        hits = self.index.last(keys)
        alive = self._alive(hits.entries.location)
        if not self._versions or alive.all():
            return hits if alive.all() else hits.take(alive)
        # Somebody else deleted a key's newest version: then an older one counts.
        rest = self.find(keys.take(hits.asked[~alive]))
        newest = np.append(rest.asked[1:] != rest.asked[:-1], True)[: len(rest)]
        older = Hits(hits.asked[~alive][rest.asked[newest]], rest.entries.take(newest))
        return concat_hits(hits.take(alive), older)

    def find(self, keys: Keys) -> Hits:
        """Give the entries of the keys whose rows are alive, by key and position."""
        hits = self.index.find(keys)
        return hits.take(self._alive(hits.entries.location)) if len(hits) else hits

    def remembering(self, keys: Keys) -> Flags:
        """Mark the keys of which a row that is alive remembers older changes."""
        hits, marks = self.find(keys), np.zeros(len(keys), np.bool_)
        marks[hits.asked[(hits.entries.location & REMEMBERS) != 0]] = True
        return marks

    def new(self, change: Change, but: Sequence[str] = ()) -> Change:
        """Give a change without the rows that are stored as they are, but for some columns. For few rows."""
        names = [name for name in change.append.column_names if name not in but]
        remove = change.remove & ~FLAGS
        stored = {repr(row): place for place, row in enumerate(self.rows(remove, names).to_pylist())}
        again = [stored.pop(repr(row), None) for row in change.append.select(names).to_pylist()]
        keep = np.ones(len(remove), np.bool_)
        keep[[place for place in again if place is not None]] = False
        return Change(change.append.filter(pa.array([place is None for place in again], pa.bool_())), remove[keep])

    def rows(self, locations: Ints, columns: Sequence[str] | None = None) -> pa.Table:
        """Give stored rows, in the order of the locations."""
        return self.table.rows(locations & ~FLAGS, columns)

    def commit(
        self, change: Change, progress: Mapping[Partition, int], state: AnchorState | None, *, operation: str
    ) -> None:
        """Make one commit; raises as MergeTable.commit does."""
        remove = change.remove & ~FLAGS
        known = self._numbers & self.table.files().keys()
        locations = self.table.commit(change.append, remove, progress, state, operation=operation)
        self._move(*self.table.moved, known)
        for number, where in by_file(remove):
            if number in self._dead_rows:
                self._dead_rows[number][remove[where] & POSITION] = True
        self._numbers.update(np.unique(locations >> POSITION_BITS).tolist())
        self._enter(change.append, locations, None)

    def _move(self, old: Ints, new: Ints, known: Set[int]) -> None:
        """Follow rows that a commit of ours wrote into other files; known: files whose rows were in the index before.

        A new file that holds rows of a file that was not known is still to be entered.
        """
        self.index.move(old, new, FLAGS)
        if self.kept:
            self.kept.unwritten += len(new)
        strange = ~np.isin(old >> POSITION_BITS, list(known))
        files = new >> POSITION_BITS
        self._numbers |= set(np.unique(files).tolist()) - set(np.unique(files[strange]).tolist())

    def below(self, major: int, minor: int) -> Entries:
        """Give the entries of rows that are alive and stand below a position; asks every entry."""
        entries = self.index.below(major, minor)
        return entries.take(self._alive(entries.location))

    def unflagged(self, flag: int, major: int) -> Entries:
        """Give the entries of rows that are alive, stand at or below a position and lack a flag; asks every entry."""
        entries = self.index.unflagged(flag, major)
        return entries.take(self._alive(entries.location))

    def _enter(self, rows: pa.Table, locations: Ints, alive: Flags | None) -> None:
        if not len(rows):
            return
        entries = self._told.entries(rows, locations)
        self.index.put(entries if alive is None else entries.take(alive))
        if self.kept:
            self.kept.unwritten += len(entries)

    def _dead(self, number: int) -> Flags | None:
        """Give which rows of a live file are deleted, None when none is."""
        if number not in self._dead_rows:
            vector = self.table.dead(number)
            if vector is None:
                return None
            marks = np.zeros(self.table.row_count(number), np.bool_)
            marks[np.array(vector.to_array(), np.int64)] = True
            self._dead_rows[number] = marks
        return self._dead_rows[number]

    def _alive(self, locations: Ints) -> Flags:
        """Mark the locations whose file is there and whose row is not deleted."""
        alive = np.ones(len(locations), np.bool_)
        plain = locations & ~FLAGS
        files = self.table.files()
        for number, where in by_file(plain):
            dead = self._dead(number) if number in files else None
            if number not in files:
                alive[where] = False
            elif dead is not None:
                alive[where] &= ~dead[plain[where] & POSITION]
        return alive

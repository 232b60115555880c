"""What a batch does to <stream>_history: one row per version of a key, from its change to the next one (SCD type 2).

Changes above all that is stored of their key are simple: they close the open version and append theirs. A change that
comes late splits a version, and may give values to those after it: its key is settled from all its versions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.model import Contract
from contracts.state import tracked_columns
from lakehouse.anchor import Floors
from lakehouse.groups import NONE, Flags, Ints
from lakehouse.merge.indexed import CLOSED, FLAGS, REMEMBERS, Change, IndexedTable
from lakehouse.merge.keys import Keys
from lakehouse.order import is_swept, stands_above
from lakehouse.state.candidates import NEW, NOWHERE, Candidates, Rows, assembled
from lakehouse.state.columns import history_schema, toastable
from lakehouse.state.events import ALIVE, NOTE, Events, lists_of, nothing_said
from lakehouse.state.floors import above_floors, clipped, locations_below
from lakehouse.state.known import Known, gather_known
from lakehouse.state.memo import write_memo
from lakehouse.state.settling import memo_of, shaped, taken, unchanged
from lakehouse.state.waiting import Sources


@dataclass(frozen=True)
class _Groups:
    """A batch's keys, and what the tables know of each."""

    keys: Keys
    of: Ints  # event -> group
    open: Ints  # group -> its open version, NONE
    complex: Flags


class History:
    """Tells what batches do to a stream's history."""

    def __init__(self, contract: Contract, history: IndexedTable, memory: IndexedTable) -> None:
        self.contract, self.history, self.memory = contract, history, memory
        self._columns = toastable(contract)
        self._schema = history_schema(contract)

    def outcome(self, events: Events, floors: Floors, raised: Floors) -> Change:
        """Give the change that the events make, on top of the snapshots of history and memory.

        floors: of the truncates so far; raised: those of this batch.
        """
        change = self._change(events, floors)
        return self._floored(change, raised) if raised else change

    def again(self, keys: Keys, floors: Floors) -> Change:
        """Give what becomes of keys that nothing new is said of, from all that is stored by now."""
        nothing = np.full(len(keys), NONE, np.int64)
        groups = _Groups(keys, nothing[:0], nothing, np.ones(len(keys), np.bool_))
        return self._settled(nothing_said(self.contract, keys), groups, floors)

    def _floored(self, change: Change, raised: Floors) -> Change:
        """End the stored versions that reach over a floor that was raised, but for those written anyway."""
        parts, removed = [change.append], [change.remove & ~FLAGS]
        for topic, own in raised.items():
            for floor in own:  # the lowest first: a version ends at the first floor above it
                time = pa.scalar(floor[2], pa.int64()).cast(self._schema.field("_valid_to").type)
                left = np.setdiff1d(locations_below(self.history, topic, floor) & ~FLAGS, np.concatenate(removed))
                end = self.history.rows(left, ["_valid_to"])["_valid_to"]
                left = left[pc.fill_null(pc.greater(end, time), True).to_numpy()]
                parts.append(self._closed(self.history.rows(left), pa.repeat(time, len(left))))
                removed.append(left)
        return Change(pa.concat_tables(parts), np.concatenate(removed))

    def _change(self, events: Events, floors: Floors) -> Change:
        if (events.what == NOTE).any():  # what waits in quarantine is no version
            events = events.take(np.flatnonzero(events.what != NOTE))
        groups = self._groups(events)
        if floors:  # a version that a truncate ended may end earlier
            late = ~above_floors(events.rows["_topic"], events.major, events.minor, floors)
            groups.complex[groups.of[late]] = True
        settled = self._settled(events, groups, floors) if groups.complex.any() else None
        change = self._continued(events, groups, floors)
        if settled is None:
            return change
        return Change(
            pa.concat_tables([change.append, settled.append]), np.concatenate([change.remove, settled.remove])
        )

    def _groups(self, events: Events) -> _Groups:
        of, first = events.keys.groups()
        keys = events.keys.take(first)
        top, open_version = np.full((len(keys), 2), NONE, np.int64), np.full(len(keys), NONE, np.int64)
        marked = np.zeros(len(keys), np.bool_)
        for table in (self.memory, self.history):
            hits = table.last(keys)
            position = np.stack([hits.entries.major, hits.entries.minor], axis=1)
            above = stands_above(position, top[hits.asked])
            top[hits.asked[above]] = position[above]
            marked[hits.asked[(hits.entries.location & REMEMBERS) != 0]] = True
        open_version[hits.asked] = np.where((hits.entries.location & CLOSED) == 0, hits.entries.location, NONE)
        position = np.stack([events.major, events.minor], axis=1)
        marked[of[~stands_above(position, top[of])]] = True
        marked[of[is_swept(top[of, 1]) & (events.minor == top[of, 1] + 1)]] = True  # that end was none
        for marks in events.unset.values():
            marked[of[marks & (events.what == ALIVE)]] = True
        if self._columns:
            marked[of[events.linked_in | events.linked_out]] = True
        # What may say again what is known already: rows read once more, and all where only some columns are tracked.
        again = _equals(events.rows["_op"], "r") if self.contract.state.tracked is None else np.ones(len(of), np.bool_)
        several = np.bincount(of, minlength=len(keys)) > 1
        marked[of[again]] |= (several | (open_version != NONE))[of[again]]
        return _Groups(keys, of, open_version, marked)

    def _continued(self, events: Events, groups: _Groups, floors: Floors) -> Change:
        """Give the versions of simple keys, and their open ones closed."""
        order = np.lexsort((events.minor, events.major, groups.of))
        order = order[~groups.complex[groups.of[order]]]
        group = groups.of[order]
        same_key = group[1:] == group[:-1]
        again = np.zeros(len(order), np.bool_)
        again[1:] = same_key & (np.diff(events.major[order]) == 0) & (np.diff(events.minor[order]) == 0)
        order, group = order[~again], group[~again]
        first = np.ones(len(order), np.bool_)
        first[1:] = group[1:] != group[:-1]
        times = _times(events.rows).take(pa.array(order))
        follows = np.arange(1, len(order) + 1)
        follows[:-1][first[1:]] = NOWHERE
        follows[-1:] = NOWHERE
        alive = events.what[order] == ALIVE
        position = np.stack([events.major[order], events.minor[order]], axis=1)
        end = self._ends(events.rows["_topic"].take(pa.array(order[alive])), position, alive, follows, times, floors)
        made = self._versions(events, order[alive], times.filter(pa.array(alive)), end)
        closing = np.flatnonzero(first & (groups.open[group] != NONE))
        closing = closing[np.argsort(groups.open[group[closing]] & ~FLAGS, kind="stable")]  # as they are read
        stored = groups.open[group[closing]]
        rows = self.history.rows(stored)
        begun = np.stack([rows["_order_major"].to_numpy(), rows["_order_minor"].to_numpy()], axis=1)
        closed = self._closed(
            rows, clipped(rows["_topic"], begun, position[closing], times.take(pa.array(closing)), floors)
        )
        return Change(pa.concat_tables([closed, made]), stored)

    @staticmethod
    def _ends(  # noqa: PLR0917 (all of one table)
        topics: pa.ChunkedArray, position: Ints, which: Flags | Rows, follows: Rows, times: pa.Array, floors: Floors
    ) -> pa.Array:
        """Give when versions end: at what follows them, or at a truncate before it."""
        end = _at(times, follows[which])
        if not floors:
            return end
        last = np.full((1, 2), np.iinfo(np.int64).max)
        follower = np.concatenate([position, last])[follows[which]]
        return clipped(topics, position[which], follower, end, floors)

    def _versions(self, events: Events, where: Rows, begin: pa.Array, end: pa.Array) -> pa.Table:
        told = {
            "_valid_from": begin,
            "_valid_to": end,
            "_is_current": end.is_null(),
            "_order_major": events.major[where],
            "_order_minor": events.minor[where],
        }
        return shaped(taken(events.rows, where, self._schema, told), self._schema, told)

    def _closed(self, rows: pa.Table, end: pa.Array) -> pa.Table:
        return shaped(rows, self._schema, {"_valid_to": end, "_is_current": pa.repeat(False, len(rows))})

    def _settled(self, events: Events, groups: _Groups, floors: Floors) -> Change:
        """Settle the other keys from all their versions; marks those that belong to them."""
        known = gather_known(
            self.contract,
            events,
            groups.of,
            groups.keys,
            groups.complex,
            (self.history, self.memory),
            self._columns,
            [time for own in floors.values() for _, _, time in own if time is not None],
        )
        c = known.candidates
        sources = {name: c.sources(name, known.links) for name in self._columns}
        versions = c.order[(c.counts & (c.what == ALIVE))[c.order]]
        values = assembled(c.rows, versions, {name: value[versions] for name, (_, value) in sources.items()})
        follows, position = _followers(c), np.stack([c.major, c.minor], axis=1)
        first = ~self._says_again(c, known, versions, values, follows, floors)
        begins, ends = versions[first], versions[np.append(first[1:], True)[: len(first)]]
        times = _moments(c, known)
        end = self._ends(c.rows["_topic"].take(pa.array(ends)), position, ends, follows, times, floors)
        again = np.isin(c.location[begins], c.location[known.again])
        whole = (c.location[begins] == c.location[ends]) & (known.again[ends] == again)
        same = whole & (c.location[begins] != NEW) & ~known.again[begins]
        same &= unchanged(c, known, begins, sources) & _equal(c.rows["_valid_to"], begins, end)
        told = self._told(c, known, sources, begins[~same], ends[~same], times)
        told |= {"_valid_to": end.filter(pa.array(~same)), "_is_current": end.filter(pa.array(~same)).is_null()}
        rows = values.filter(pa.array(first)).filter(pa.array(~same))
        kept = np.isin(c.location[versions], c.location[begins[same]])
        gone = np.unique(c.location[versions[(c.location[versions] != NEW) & ~kept]] & ~FLAGS)
        return Change(shaped(rows, self._schema, told), gone)

    def _told(  # noqa: PLR0917 (all of the versions to write)
        self, c: Candidates, known: Known, sources: Sources, begins: Rows, ends: Rows, times: pa.Array
    ) -> dict[str, object]:
        """Give the columns of versions that do not come from their rows."""
        at = {name: (own[begins], value[begins]) for name, (own, value) in sources.items()}
        memo = memo_of(c, known, begins, np.full((len(begins), 2), NONE, np.int64), at)
        again = begins != ends
        micros = times.cast(pa.int64()).take(pa.array(ends)).fill_null(NONE).to_numpy(zero_copy_only=False)
        memo = replace(
            memo,
            begin=(np.where(again, c.major[begins], NONE), np.where(again, c.minor[begins], NONE)),
            said_again_at=np.where(again, micros, NONE),
        )
        return {
            "_valid_from": times.take(pa.array(begins)),
            "_order_major": c.major[ends],
            "_order_minor": c.minor[ends],
            "_pending": lists_of({name: value == NOWHERE for name, (_, value) in at.items()}, len(begins)),
            "_memo": write_memo(memo, len(begins)),
        }

    def _says_again(  # noqa: PLR0917 (all of the same versions)
        self, c: Candidates, known: Known, versions: Rows, values: pa.Table, follows: Rows, floors: Floors
    ) -> Flags:
        """Mark the versions (by key and position) that say what the one before them says: no change, no new version."""
        marks = np.zeros(len(versions), np.bool_)
        if len(versions) < 2:
            return marks
        may = _equals(values["_op"], "r") | known.again[versions]
        if self.contract.state.tracked is not None:
            may[:] = True
        marks[1:] = (follows[versions[:-1]] == versions[1:]) & may[1:]
        for own in floors.values():
            for major, minor, _ in own:
                below = ~stands_above(
                    np.stack([c.major[versions], c.minor[versions]], axis=1), np.array([[major, minor]])
                )
                marks[1:] &= below[1:] == below[:-1]
        where = np.flatnonzero(marks)
        for name in tracked_columns(self.contract) if len(where) else ():
            marks[where] &= _same_values(values[name], where)
        return marks


def _same_values(column: pa.ChunkedArray, where: Rows) -> Flags:
    """Mark the places where a column has the value it has one row before."""
    one, other = (column.take(pa.array(rows)).combine_chunks() for rows in (where, where - 1))
    if pa.types.is_nested(column.type):
        same: Flags = np.array([a == b for a, b in zip(one.to_pylist(), other.to_pylist(), strict=True)], np.bool_)
        return same
    equal = pc.fill_null(pc.equal(one, other), False)
    if pa.types.is_floating(column.type):
        equal = pc.or_(equal, pc.and_(pc.fill_null(pc.is_nan(one), False), pc.fill_null(pc.is_nan(other), False)))
    same = pc.or_(equal, pc.and_(one.is_null(), other.is_null())).to_numpy(zero_copy_only=False)
    return same


def _moments(c: Candidates, known: Known) -> pa.Array:
    """Give when what each candidate says happened."""
    times = _times(c.rows)
    again = pa.array(known.said_at, mask=known.said_at == NONE).cast(times.type)
    return pc.coalesce(again, times)


def _equals(column: pa.ChunkedArray, value: str) -> Flags:
    marks: Flags = pc.fill_null(pc.equal(column, value), False).to_numpy()
    return marks


def _followers(c: Candidates) -> Rows:
    """Give for each row or delete that counts the next one of its key, NOWHERE for the last."""
    order = c.order[c.counts[c.order]]
    follows = np.full(len(c), NOWHERE, np.intp)
    same = c.group[order][1:] == c.group[order][:-1]
    follows[order[:-1][same]] = order[1:][same]
    return follows


def _times(rows: pa.Table) -> pa.Array:
    """Give when changes happened: when the source committed, else the event time."""
    times = pc.coalesce(rows["_source_time"], rows["_event_time"])
    return times.combine_chunks() if isinstance(times, pa.ChunkedArray) else times


def _at(times: pa.Array, where: Rows) -> pa.Array:
    """Give times at places, null for NOWHERE."""
    return (
        times.take(pa.array(np.maximum(where, 0), mask=where < 0)) if len(times) else pa.nulls(len(where), times.type)
    )


def _equal(column: pa.ChunkedArray, where: Rows, values: pa.Array) -> Flags:
    """Mark where a column's values equal others, null equal to null."""
    held = column.take(pa.array(where)).combine_chunks()
    both = pc.and_(held.is_null(), values.is_null())
    marks: Flags = pc.or_(pc.fill_null(pc.equal(held, values), False), both).to_numpy(zero_copy_only=False)
    return marks

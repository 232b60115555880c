"""What a batch does to <stream> (one row per key) and to the memory of deletes. Reads stored rows only where it must.

Most keys are simple: their newest change says the whole row, and the index knows that it is newer than the stored one.
The others are settled from all candidates of their keys (lakehouse.state.candidates).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.model import Contract
from lakehouse.anchor import Floor, Floors
from lakehouse.groups import NONE, Flags, Ints
from lakehouse.lanes import WHOLE, Lane
from lakehouse.merge.indexed import FLAGS, REMEMBERS, Change, IndexedTable
from lakehouse.merge.keys import Keys
from lakehouse.state.candidates import NEW, NOWHERE, Candidates, Rows, assembled
from lakehouse.state.columns import CURRENT_META, REST, current_schema, memory_schema, toastable
from lakehouse.state.events import ALIVE, DEAD, NOTE, Events, lists_of, nothing_said
from lakehouse.state.floors import above_floors, locations_below
from lakehouse.state.known import Known, gather_known
from lakehouse.state.memo import write_memo
from lakehouse.state.settling import memo_of, said_here, shaped, taken, unchanged
from lakehouse.state.waiting import Sources, carried, lacked, lacking


@dataclass(frozen=True)
class _Groups:
    """A batch's keys: each event's group, and what the tables know of each group."""

    keys: Keys  # of the groups
    of: Ints  # event -> group
    last: Rows  # group -> its newest event, -1 for a group of notes only
    newer: Flags  # group -> the newest event stands above what the tables hold
    location: Ints  # group -> its row in current, NONE when there is none
    complex: Flags


class Current:
    """Tells what batches do to a stream's current table and memory."""

    def __init__(self, contract: Contract, current: IndexedTable, memory: IndexedTable, lane: Lane = WHOLE) -> None:
        self.contract, self.current, self.memory, self._lane = contract, current, memory, lane
        self._soft = contract.state.soft_deletes
        self._columns = (*toastable(contract), REST) if self._soft else toastable(contract)
        self._schema, self._memory_schema = current_schema(contract), memory_schema(contract)

    def outcome(
        self, events: Events, now_us: int, floors: Floors, raised: Floors, *, afresh: bool = False
    ) -> dict[str, Change]:
        """Give the changes that events make to current and memory, on top of their snapshots.

        now_us: when deletes are recorded. floors: of the truncates so far; raised: those of this batch. afresh: the
        events hold all changes of their keys that wait, whatever stored rows say of them.
        """
        if floors:
            above = above_floors(events.rows["_topic"], events.major, events.minor, floors)
            above |= events.what == DEAD  # history asks the memory when a version ended
            events = events if above.all() else events.take(np.flatnonzero(above))
        changes = self._changes(events, now_us, afresh)
        return {**changes, "current": self._floored(changes["current"], raised)} if raised else changes

    def again(self, keys: Keys, now_us: int) -> dict[str, Change]:
        """Give what becomes of keys that nothing new is said of, from all that is stored by now."""
        return self._settled(nothing_said(self.contract, keys), _unsaid(keys), now_us, afresh=False)

    def _floored(self, change: Change, raised: Floors) -> Change:
        """Take out what stands below the floors that were raised, stored or about to be."""
        new = change.append
        above = above_floors(new["_topic"], new["_order_major"].to_numpy(), new["_order_minor"].to_numpy(), raised)
        rows, removed = [new.filter(pa.array(above))], [change.remove & ~FLAGS]
        for topic, own in raised.items():
            below = np.setdiff1d(locations_below(self.current, topic, own[-1]) & ~FLAGS, removed[0])
            removed.append(below)
            if self._soft:
                rows += [
                    self._truncated(part, own[-1]) for part in (self.current.rows(below), new.filter(pa.array(~above)))
                ]
        return Change(pa.concat_tables(rows), np.concatenate(removed))

    def _truncated(self, rows: pa.Table, floor: Floor) -> pa.Table:
        """Give rows as a truncate leaves them where deleted rows stay."""
        left = rows.filter(pc.invert(rows["_deleted"]))
        kept, count = shaped(rows.filter(rows["_deleted"]), self._schema, {}), len(left)
        ranks = {"_order_major": np.full(count, floor[0]), "_order_minor": np.full(count, floor[1])}
        told = {**ranks, "_deleted": pa.repeat(True, count), "_op": pa.repeat("t", count)}
        return pa.concat_tables([kept, shaped(left, self._schema, told)])

    def _changes(self, events: Events, now_us: int, afresh: bool) -> dict[str, Change]:
        groups = self._groups(events)
        settled = self._settled(events, groups, now_us, afresh=afresh) if groups.complex.any() else None
        simple = ~groups.complex & groups.newer
        last = groups.last[simple]
        alive = events.what[last] == ALIVE
        rows = [self._plain_rows(events, last[alive])]
        removed = [groups.location[simple & (groups.location != NONE)]]
        deletes = np.flatnonzero((events.what == DEAD) & ~groups.complex[groups.of])
        there = self._was_there(events, groups.of, groups.location)
        deletes = deletes[~events.weak[deletes] | there[groups.of[deletes]]]
        records = [self._plain_records(events, self._unrecorded(events, deletes), now_us)]
        if settled is not None:
            rows.append(settled["current"].append)
            removed.append(settled["current"].remove)
            records.append(settled["memory"].append)
            forgotten = settled["memory"].remove
        else:
            forgotten = np.zeros(0, np.int64)
        return {
            "current": Change(pa.concat_tables(rows), np.concatenate(removed)),
            "memory": Change(pa.concat_tables(records), forgotten),
        }

    @staticmethod
    def _was_there(events: Events, of: Ints, location: Ints) -> Flags:
        """Mark the groups that have, or had in this batch, a row: what leaves the filter there is worth a record."""
        there: Flags = location != NONE
        there[of[events.what == ALIVE]] = True
        return there

    def _groups(self, events: Events) -> _Groups:
        of, first = events.keys.groups()
        keys = events.keys.take(first)
        location = np.full(len(keys), NONE, np.int64)
        top = np.full((len(keys), 2), NONE, np.int64)
        hits = self.current.last(keys)
        location[hits.asked] = hits.entries.location
        top[hits.asked] = np.stack([hits.entries.major, hits.entries.minor], axis=1)
        remembered = self._ask_memory(events, of, keys, location, top)
        last = _newest(events, of, len(keys))
        spoken = np.flatnonzero(last >= 0)
        major, minor = events.major[last[spoken]], events.minor[last[spoken]]
        newer = np.zeros(len(keys), np.bool_)
        newer[spoken] = (major > top[spoken, 0]) | ((major == top[spoken, 0]) & (minor > top[spoken, 1]))
        return _Groups(keys, of, last, newer, location, remembered | self._complex(events, of, last, location))

    def _ask_memory(self, events: Events, of: Ints, keys: Keys, location: Ints, top: Ints) -> Flags:
        """Raise the tops of keys without a row to their last delete; mark keys whose records a change may concern."""
        asked = location == NONE
        if self._columns:
            major, minor = top[of, 0], top[of, 1]
            late = (events.major < major) | ((events.major == major) & (events.minor < minor))
            asked[of[late]] = True
        ask = np.flatnonzero(asked)
        hits = self.memory.find(keys.take(ask))  # by asked key and position: of several assignments the newest stays
        position = np.stack([hits.entries.major, hits.entries.minor], axis=1)
        away = location[ask[hits.asked]] == NONE
        top[ask[hits.asked[away]]] = position[away]
        marks = np.zeros(len(keys), np.bool_)
        marks[ask[hits.asked[(hits.entries.location & REMEMBERS) != 0]]] = True
        return marks

    def _complex(self, events: Events, of: Ints, last: Rows, location: Ints) -> Flags:
        """Mark the groups whose outcome the newest event alone does not tell."""
        marked: Flags = (location != NONE) & ((location & REMEMBERS) != 0)
        marked[of[events.what == NOTE]] = True
        spoken = np.flatnonzero(last >= 0)
        for marks in events.unset.values():
            marked[spoken[marks[last[spoken]] & (events.what[last[spoken]] == ALIVE)]] = True
        if self._columns:
            marked[of[events.linked_in | events.linked_out]] = True
            marked[of[events.weak]] |= self._was_there(events, of, location)[of[events.weak]]
        if self._soft:
            marked[spoken[events.what[last[spoken]] == DEAD]] = True
        return marked

    def _unrecorded(self, events: Events, deletes: Rows) -> Rows:
        """Give of these deletes one of each position that the memory does not hold."""
        if not len(deletes):
            return deletes
        of, _ = events.keys.take(deletes).groups()
        order = np.lexsort((events.minor[deletes], events.major[deletes], of))
        place = np.stack([of, events.major[deletes], events.minor[deletes]], axis=1)[order]
        new = np.ones(len(order), np.bool_)
        new[1:] = (place[1:] != place[:-1]).any(axis=1)
        deletes = deletes[np.sort(order[new])]
        held = self.memory.find(events.keys.take(deletes))
        same = (held.entries.major == events.major[deletes][held.asked]) & (
            held.entries.minor == events.minor[deletes][held.asked]
        )
        known = np.zeros(len(deletes), np.bool_)
        known[held.asked[same]] = True
        return deletes[~known]

    def _plain_rows(self, events: Events, where: Rows) -> pa.Table:
        """Give rows of current that events say whole."""
        count = len(where)
        ranks = {"_order_major": events.major[where], "_order_minor": events.minor[where]}
        told = {**ranks, "_stale": pa.repeat(False, count), "_deleted": pa.repeat(False, count)}
        return shaped(taken(events.rows, where, self._schema, told), self._schema, told)

    def _plain_records(self, events: Events, where: Rows, now_us: int) -> pa.Table:
        """Give records of deletes after which nobody asks for the row's values."""
        rows = events.rows.take(pa.array(where))
        for name in toastable(self.contract):
            rows = rows.drop_columns([name])
        return _records(rows, events.major[where], events.minor[where], self._memory_schema, now_us)

    def _settled(self, events: Events, groups: _Groups, now_us: int, *, afresh: bool) -> dict[str, Change]:
        """Settle the complex groups from all that is known of their keys; marks those that belong to them."""
        tables = self.current, self.memory
        known = gather_known(self.contract, events, groups.of, groups.keys, groups.complex, tables, self._columns)
        if afresh:
            known = known.afresh(int(groups.complex.sum()))
        candidates = known.candidates
        sources = {name: candidates.sources(name, known.links) for name in self._columns}
        known = replace(known, waits=carried(candidates, known.waits, sources, known.links))
        return {
            "current": self._rows(candidates, known, sources),
            "memory": self._records(candidates, known, sources, now_us),
        }

    def _rows(self, c: Candidates, known: Known, sources: Sources) -> Change:
        """Give what becomes of the groups' rows in current."""
        last = c.last
        there = np.flatnonzero((last >= 0) & self._lane.owns(known.keys)[: len(last)])
        winner = last[there]
        gone = c.what[winner] == DEAD
        keeps = ~gone | np.bool_(self._soft)
        row = known.row[there]
        stored = np.where(row < 0, NONE, c.location[row])  # where it lies
        stale, hidden = lacking(c, known.waits, sources, winner)
        same = (row >= 0) & (c.location[winner] != NEW)
        same &= (c.major[winner] == c.major[row]) & (c.minor[winner] == c.minor[row])
        same &= unchanged(c, known, winner, sources) & known.stored.equal(row, stale, hidden)
        if self._soft:  # nothing was ever said of the row
            keeps &= ~gone | (sources[REST][1][winner] != NOWHERE)
        put = keeps & ~same
        remove = stored[(stored != NONE) & (put | ~keeps)]
        hides = lists_of({name: marks[put] for name, marks in hidden.items()}, int(put.sum()))
        return Change(self._assembled(c, known, winner[put], (stale[put], hides), sources, gone[put]), remove)

    def _assembled(  # noqa: PLR0917 (all of the rows to write)
        self,
        c: Candidates,
        known: Known,
        winner: Rows,
        waiting: tuple[Ints, pa.ListArray],
        sources: Sources,
        gone: Flags,
    ) -> pa.Table:
        stale, hides = waiting
        values = {name: value[winner] for name, (_, value) in sources.items() if name != REST}
        base = winner
        if self._soft:  # a deleted row keeps what it last said, but for what the delete itself says
            rest = sources[REST][1][winner]
            base = np.where(gone & (rest != NOWHERE), rest, winner)
        rows = assembled(c.rows, base, values)
        for name in CURRENT_META.names if self._soft else ():
            place = rows.schema.get_field_index(name)
            rows = rows.set_column(place, rows.schema.field(name), c.rows[name].take(pa.array(winner)))
        pending = {name: value == NOWHERE for name, value in values.items()}
        pending = {name: marks & ~(gone & (winner == base)) for name, marks in pending.items()}
        at = {name: (own[winner], value[winner]) for name, (own, value) in sources.items()}
        told = {
            "_order_major": c.major[winner],
            "_order_minor": c.minor[winner],
            "_stale": pa.array(stale[:, 0] != NONE),
            "_deleted": pa.array(gone),
            "_pending": lists_of(pending, len(winner)),
            "_memo": write_memo(memo_of(c, known, winner, stale, at, hides), len(winner)),
        }
        return shaped(rows, self._schema, told)

    def _records(self, c: Candidates, known: Known, sources: Sources, now_us: int) -> Change:
        """Give the records of new deletes, and those whose values a late change corrected."""
        was_there = np.zeros(len(c.last), np.bool_)
        was_there[c.group[c.counts & ((c.what == ALIVE) | (c.weak & (c.location != NEW)))]] = True
        deletes = c.counts & (c.what == DEAD) & known.recorded & (~c.weak | was_there[c.group])
        toast = said_here(c, {name: sources[name] for name in self._columns if name != REST})
        ends = np.flatnonzero(deletes & self._lane.owns(known.keys)[c.group])
        keeps = (known.linked_out | c.weak)[ends]  # the row goes on under another key, or may come back
        stale, hidden = lacked(c, known.waits, toast, ends)
        stale[~keeps] = NONE
        hidden = {name: marks & keeps for name, marks in hidden.items()}
        new = c.location[ends] < 0
        same = unchanged(c, known, ends, toast) & known.stored.equal(ends, stale, hidden)
        changed = ~new & keeps & ~same
        chosen = new | changed
        write, out = ends[chosen], keeps[chosen]
        values = {name: np.where(out, value[write], NOWHERE) for name, (_, value) in toast.items()}
        rows = assembled(c.rows, write, values)
        pending = {name: out & (value == NOWHERE) for name, value in values.items()}
        kept = {name: (np.where(out, own[write], NOWHERE), value[write]) for name, (own, value) in toast.items()}
        hides = lists_of({name: marks[chosen] for name, marks in hidden.items()}, len(write))
        told = {
            "_pending": lists_of(pending, len(write)),
            "_memo": write_memo(memo_of(c, known, write, stale[chosen], kept, hides), len(write)),
        }
        records = _records(rows, c.major[write], c.minor[write], self._memory_schema, now_us, told)
        return Change(records, c.location[ends[changed]])


def _unsaid(keys: Keys) -> _Groups:
    """Give keys as a batch's that says nothing of them."""
    nothing = np.full(len(keys), NONE, np.int64)
    marks = np.zeros(len(keys), np.bool_)
    return _Groups(keys, nothing[:0], np.full(len(keys), -1, np.intp), marks, nothing, ~marks)


def _newest(events: Events, of: Ints, count: int) -> Rows:
    """Give per group its newest row or delete, -1 where there are only notes."""
    spoken = np.flatnonzero(events.what != NOTE)
    order = spoken[np.lexsort((events.minor[spoken], events.major[spoken], of[spoken]))]
    last = np.full(count, -1, np.intp)
    last[of[order]] = order
    return last


def _records(
    rows: pa.Table, major: Ints, minor: Ints, schema: pa.Schema, now_us: int, told: dict[str, object] | None = None
) -> pa.Table:
    columns: dict[str, object] = {"_order_major": major, "_order_minor": minor, **(told or {})}
    columns["_recorded_at"] = pa.repeat(pa.scalar(now_us, pa.int64()), len(rows)).cast(
        schema.field("_recorded_at").type
    )
    if "_time" not in rows.column_names:
        columns["_time"] = pc.coalesce(rows["_source_time"], rows["_event_time"])
    return shaped(rows, schema, columns)

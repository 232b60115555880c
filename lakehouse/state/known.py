"""Gather all that is known of some keys: what a batch says, the stored rows, and the records of deletes.

A key change ties two keys together: the row's values may have to come from the key before, and a late change of that
key may have to go on to the key after. Such keys are gathered too, as far as the ties lead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.columns import own_schema
from contracts.model import Contract
from contracts.types import MICROS_UTC
from lakehouse.groups import NONE, Flags, Ints, int64s
from lakehouse.merge.indexed import IndexedTable
from lakehouse.merge.keys import Keys, concat_keys, keys_of
from lakehouse.order import HALVES, KEY_CHANGE, is_swept
from lakehouse.state.candidates import NEW, Candidates, Rows
from lakehouse.state.columns import CURRENT_META
from lakehouse.state.events import ALIVE, DEAD, NOTHING, Events, parsed_keys
from lakehouse.state.memo import read_memo
from lakehouse.state.parts import Part, of_current, of_events, of_records
from lakehouse.state.waiting import Waits


@dataclass(frozen=True)
class Known:
    """Candidates and what belongs to each of them; groups are numbered as the asked keys, further keys follow."""

    candidates: Candidates
    links: Rows  # candidate -> the delete of the key before, -1
    link_texts: pa.StringArray  # candidate -> the key before, where it is linked
    linked_out: Flags
    recorded: Flags  # candidates that are records of deletes, or become some
    waits: Waits  # what candidates tell of changes that wait
    stored: Waits  # and what of it they are stored with
    row: Rows  # group -> its row in current, -1
    again: Flags  # candidates that say a stored version again: their rows are those of its beginning
    said_at: Ints  # and when they did (us), NONE for all others
    remembered: Mapping[str, Ints]  # column -> per candidate, the position that its memo says (n x 2), NONE
    keys: Keys  # of the groups

    def afresh(self, groups: int) -> Known:
        """Give the same without what the stored rows of the first so many groups say of waiting changes."""
        mine = (self.candidates.group < groups) & (self.candidates.location != NEW)
        return replace(self, waits=self.waits.without(mine))


@dataclass
class _Gathering:
    """Keys and parts, while they are gathered."""

    contract: Contract
    columns: Sequence[str]
    keys: Keys
    parts: list[Part] = field(default_factory=list)
    groups: dict[tuple[int, int], int] = field(default_factory=dict)  # filled when the first tie is met
    texts: dict[str, int] = field(default_factory=dict)  # key as JSON -> group, -1 for one that cannot be read

    def __post_init__(self) -> None:
        beside = [("_next_key", pa.string()), ("_valid_to", MICROS_UTC), ("_is_current", pa.bool_())]
        self.schema = pa.schema([*own_schema(self.contract), *CURRENT_META, *beside])

    def add_keys(self, texts: Sequence[str]) -> Keys:
        """Take in keys by their JSON, and give those that are new."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self.texts]
        if not fresh:
            return self.keys.take(slice(0, 0))
        if not self.groups:
            self.groups = {pair: number for number, pair in enumerate(_pairs(self.keys))}
        table = parsed_keys(fresh, self.contract, self.schema)
        whole = np.all([pc.is_valid(column).to_numpy() for column in table.columns], axis=0)
        self.texts.update((text, -1) for text, good in zip(fresh, whole, strict=True) if not good)
        named = [text for text, good in zip(fresh, whole, strict=True) if good]
        keys = keys_of([column.filter(pa.array(whole)) for column in table.columns])
        new = []
        for row, (text, pair) in enumerate(zip(named, _pairs(keys), strict=True)):
            if pair not in self.groups:
                self.groups[pair] = len(self.groups)
                new.append(row)
            self.texts[text] = self.groups[pair]
        added = keys.take(np.array(new, np.intp))
        self.keys = concat_keys([self.keys, added])
        return added


def gather_known(  # noqa: PLR0917 (a batch's keys, and what is asked of them)
    contract: Contract,
    events: Events,
    of: Ints,
    keys: Keys,
    marked: Flags,
    tables: tuple[IndexedTable, IndexedTable],
    columns: Sequence[str],
    told: Collection[int] = (),
) -> Known:
    """Give what is known of the marked ones among a batch's keys; marks those, too, that key changes tie to them.

    events: what the batch says; of: the key of each event; the rest as `_gather` has it.
    """
    while True:
        chosen = np.flatnonzero(marked[of])
        number = (np.cumsum(marked) - 1)[of[chosen]]
        known = _gather(contract, events.take(chosen), number, keys.take(marked), tables, columns, told)
        tied = ~marked & np.isin(keys.low, known.keys.low[int(marked.sum()) :])
        if not tied.any():
            return known
        marked |= tied  # what the batch says of them counts as well


def _gather(  # noqa: PLR0917 (keys, and what is asked of them)
    contract: Contract,
    events: Events,
    group: Ints,
    keys: Keys,
    tables: tuple[IndexedTable, IndexedTable],
    columns: Sequence[str],
    told: Collection[int],
) -> Known:
    """Give what is known of keys.

    events: what a batch says of them; group: the key of each event; tables: current or history, and the memory of
    deletes; told: when the truncates were that are known (us).
    """
    current, memory = tables
    gathering = _Gathering(contract, columns, keys)
    gathering.parts.append(of_events(events, group, columns, gathering.schema))
    frontier, first = keys, 0
    further = _ties(events)
    while len(frontier):
        hits = current.find(frontier)
        rows = current.rows(hits.entries.location)
        records = memory.find(frontier)
        remembered = memory.rows(records.entries.location)
        # Records first: where a deleted row stays in current, its record is the candidate that counts.
        gathering.parts += of_records(
            remembered, records.asked + first, records.entries.location, columns, gathering.schema
        )
        gathering.parts += of_current(rows, hits.asked + first, hits.entries.location, columns, gathering.schema)
        further += _tied(rows["_memo"], None) + _tied(remembered["_memo"], remembered["_next_key"])
        first = len(gathering.keys)
        frontier = gathering.add_keys(further) if columns else keys.take(slice(0, 0))
        further = []
    disproved = _disproved(gathering.parts)
    known = _known(gathering)
    ends = known.candidates.rows["_valid_to"]
    if ends.null_count == len(ends):
        return known
    forgotten = _forgotten(known.candidates, told, disproved)
    if not len(forgotten):
        return known
    gathering.parts.append(forgotten)
    return _known(gathering)


def _disproved(parts: Sequence[Part]) -> set[tuple[int, int]]:
    """Let the ends count for nothing of which the very snapshot that lacked the row brought it after all.

    Gives their groups and times (us).
    """
    group, major, minor, what = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("group", "major", "minor", "what")
    )
    ends = (what == DEAD) & is_swept(minor)
    if not ends.any():
        return set()
    there = what == ALIVE
    chosen = np.flatnonzero(ends | (there & np.isin(group, group[ends])))
    place = np.stack([group, major, minor + ends], axis=1)[chosen]
    order = np.lexsort(place.T[::-1])
    number = np.zeros(len(order), np.int64)
    number[order[1:]] = np.cumsum((np.diff(place[order], axis=0) != 0).any(axis=1))
    held = np.isin(number, number[there[chosen]])
    wrong = np.zeros(len(what), np.bool_)
    wrong[chosen[held & ends[chosen]]] = True
    found: set[tuple[int, int]] = set()
    for part, own in zip(parts, np.split(wrong, np.cumsum([len(part) for part in parts])[:-1]), strict=True):
        part.what = np.where(own, np.int8(NOTHING), part.what)
        times = _moments(part.rows.filter(pa.array(own)))
        found.update(zip(part.group[own].tolist(), times.tolist(), strict=True))  # hardly ever any
    return found


def _moments(rows: pa.Table) -> Ints:
    """Give when changes happened (us): when the source committed, else the event time."""
    return int64s(pc.coalesce(rows["_source_time"], rows["_event_time"]).cast(pa.int64()))


def _forgotten(c: Candidates, told: Collection[int], disproved: Collection[tuple[int, int]]) -> Part:
    """Give the ends of versions of which no record is left: deletes that the memory forgot, truncates before the kept.

    Such a version stands closed, at a time before the next thing that is stored of its key begins. Its end comes after
    all that happened before that time. disproved: groups, and times of their ends that were none.
    """
    order = c.order[c.counts[c.order]]
    group, at, stored = c.group[order], np.arange(len(order)), c.location[order] != NEW
    times = _moments(c.rows)[order]
    ends = int64s(c.rows["_valid_to"].cast(pa.int64()))[order]
    known = at[stored]
    lone = np.append(group[known][1:] != group[known][:-1], True)[: len(known)]
    follower = np.append(known[1:], 0)[: len(known)]
    same = ~lone & (c.what[order][follower] == ALIVE) & (c.location[order][follower] == c.location[order][known])
    lacks = (ends[known] != NONE) & (lone | (times[follower] > ends[known])) & ~same
    lacks &= (c.what[order][known] == ALIVE) & ~np.isin(ends[known], list(told))
    if disproved:
        pairs = zip(group[known].tolist(), ends[known].tolist(), strict=True)
        lacks &= np.array([pair not in disproved for pair in pairs], np.bool_)
    open_end = np.zeros(len(order), np.bool_)
    open_end[known[lacks]] = True
    before = np.maximum.accumulate(np.where(stored, at, -1))  # the last that is stored, for each
    inside = (before >= 0) & (group == group[before]) & open_end[before] & ((before == at) | (times < ends[before]))
    place = np.full(len(order), -1, np.intp)
    np.maximum.at(place, before[inside], at[inside])
    versions = np.flatnonzero(open_end)
    last, count = order[place[versions]], len(versions)
    rows = c.rows.take(pa.array(order[versions]))
    moment = rows.schema.get_field_index("_source_time")
    return Part(
        rows.set_column(moment, rows.schema.field(moment), rows["_valid_to"].cast(rows.schema.field(moment).type)),
        c.group[last],
        c.major[last],
        c.minor[last] | (HALVES - 1),
        np.full(count, DEAD, np.int8),
        np.full(count, NEW, np.int64),
        {},
        pa.nulls(count, pa.string()),
        np.zeros(count, np.bool_),
    )


def _ties(events: Events) -> list[str]:
    """Give the keys, as JSON, that the events tie to their own."""
    before = events.rows["_previous_key"].filter(pa.array(events.linked_in)).to_pylist()
    after = events.rows["_next_key"].filter(pa.array(events.linked_out)).to_pylist()
    return [*before, *after]


def _tied(memo: pa.ChunkedArray, next_key: pa.ChunkedArray | None) -> list[str]:
    texts: list[str] = read_memo(memo).linked_from.drop_null().to_pylist()
    return texts + (next_key.drop_null().to_pylist() if next_key is not None else [])


def _known(gathering: _Gathering) -> Known:
    parts = gathering.parts
    row = _standing(parts, len(gathering.keys))

    def joined(name: str, missing: object, kind: type) -> Any:
        arrays = [getattr(part, name) for part in parts]
        return np.concatenate(
            [np.full(len(part), missing, kind) if a is None else a for part, a in zip(parts, arrays, strict=True)]
        )

    names = {name for part in parts for name in part.unset}
    candidates = Candidates(
        pa.concat_tables([part.rows for part in parts]).combine_chunks(),
        joined("group", 0, np.int64),
        joined("major", 0, np.int64),
        joined("minor", 0, np.int64),
        joined("what", 0, np.int8),
        joined("location", 0, np.int64),
        {n: np.concatenate([p.unset.get(n, np.zeros(len(p), np.bool_)) for p in parts]) for n in names},
        joined("cell", -1, np.int32),
        joined("linked", False, np.bool_),
        joined("fallback", False, np.bool_),
        joined("weak", False, np.bool_),
        gathering.columns,
    )
    texts = pa.concat_arrays([_text(part.texts) for part in parts])
    major, minor = (
        np.concatenate([np.full(len(p), NONE, np.int64) if p.waits is None else p.waits[i] for p in parts])
        for i in (0, 1)
    )
    hidden = {n: np.concatenate([_hides(p, n) for p in parts]) for n in {n for p in parts for n in p.hidden}}
    waits = Waits(major, minor, hidden)
    return Known(
        candidates,
        _links(candidates, texts, gathering.texts),
        texts,
        joined("linked_out", False, np.bool_),
        joined("recorded", False, np.bool_),
        waits,
        waits,
        row,
        joined("again", False, np.bool_),
        joined("said_at", NONE, np.int64),
        {n: np.concatenate([_positions(p, n) for p in parts]) for n in {n for p in parts for n in p.remembered}},
        gathering.keys,
    )


def _positions(part: Part, name: str) -> Ints:
    return part.remembered.get(name, np.full((len(part), 2), NONE, np.int64))


def _hides(part: Part, name: str) -> Flags:
    return part.hidden.get(name, np.zeros(len(part), np.bool_))


def _standing(parts: Sequence[Part], count: int) -> Rows:
    """Give per group the candidate that is its row in current, -1."""
    found, first = np.full(count, -1, np.intp), 0
    for part in parts:
        if part.stands:
            found[part.group] = np.arange(first, first + len(part))
        first += len(part)
    return found


def _text(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    return texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts


def _links(c: Candidates, texts: pa.StringArray, groups: dict[str, int]) -> Rows:
    """Find for each link the delete that its key change began with."""
    links = np.full(len(c), -1, np.intp)
    linked = np.flatnonzero(c.linked)
    if not len(linked):
        return links
    ends = np.flatnonzero(c.counts & (c.what == DEAD))
    at = {(int(c.group[i]), int(c.major[i]), int(c.minor[i])): int(i) for i in ends}
    for i, text in zip(linked, texts.take(pa.array(linked)).to_pylist(), strict=True):  # key changes are rare
        before = groups.get(text, -1) if text is not None else -1
        links[i] = at.get((before, int(c.major[i]), int(c.minor[i]) - KEY_CHANGE), -1)
    return links


def _pairs(keys: Keys) -> list[tuple[int, int]]:
    check = np.zeros(len(keys), np.int64) if keys.check is None else keys.check
    return list(zip(keys.low.tolist(), check.tolist(), strict=True))

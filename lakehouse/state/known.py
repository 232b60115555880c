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
from lakehouse.order import HALVES, KEY_CHANGE
from lakehouse.state.candidates import NEW, Candidates, Rows
from lakehouse.state.columns import CURRENT_META, REST
from lakehouse.state.events import ALIVE, CELL, DEAD, NOTE, Events, held, parsed_keys, unset_of
from lakehouse.state.memo import Memo, read_memo


@dataclass(frozen=True)
class Known:
    """Candidates and what belongs to each of them; groups are numbered as the asked keys, further keys follow."""

    candidates: Candidates
    links: Rows  # candidate -> the delete of the key before, -1
    link_texts: pa.StringArray  # candidate -> the key before, where it is linked
    weak: Flags
    linked_out: Flags
    recorded: Flags  # candidates that are records of deletes, or become some
    stale: tuple[Ints, Ints]  # candidate -> what its memo says of waiting changes
    location: Ints  # group -> its row in current, NONE
    top: Ints  # group -> position of that row (n x 2)
    stale_before: Ints  # group -> what that row says of waiting changes (n x 2)
    again: Flags  # candidates that say a stored version again: their rows are those of its beginning
    said_at: Ints  # and when they did (us), NONE for all others
    remembered: Mapping[str, Ints]  # column -> per candidate, the position that its memo says (n x 2), NONE
    hidden: Mapping[str, Flags]  # column -> candidates that wait and say it, or whose memo says that such a one did
    keys: Keys  # of the groups
    told_anew: bool = False  # what stored rows said of waiting changes was left out

    def afresh(self, groups: int) -> Known:
        """Give the same without what the stored rows of the first so many groups say of waiting changes."""
        mine = (self.candidates.group < groups) & (self.candidates.location != NEW)
        stale = np.where(mine, NONE, self.stale[0]), np.where(mine, NONE, self.stale[1])
        hidden = {name: marks & ~mine for name, marks in self.hidden.items()}
        return replace(self, stale=stale, hidden=hidden, told_anew=True)


@dataclass
class _Part:
    """Candidates of one origin."""

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
    recorded: Flags | None = None
    stale: tuple[Ints, Ints] | None = None
    remembered: dict[str, Ints] = field(default_factory=dict)
    again: Flags | None = None
    said_at: Ints | None = None
    hidden: dict[str, Flags] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.group)


@dataclass
class _Gathering:
    """Keys and parts, while they are gathered."""

    contract: Contract
    columns: Sequence[str]
    keys: Keys
    parts: list[_Part] = field(default_factory=list)
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


def gather_known(
    contract: Contract,
    events: Events,
    group: Ints,
    keys: Keys,
    tables: tuple[IndexedTable, IndexedTable],
    columns: Sequence[str],
    told: Collection[int] = (),
) -> Known:
    """Give what is known of keys.

    events: what a batch says of them; group: the key of each event; tables: current or history, and the memory of
    deletes; told: when the truncates were that are known (us).
    """
    current, memory = tables
    gathering = _Gathering(contract, columns, keys)
    gathering.parts.append(_of_events(events, group, gathering))
    frontier, first = keys, 0
    further = _ties(events)
    while len(frontier):
        hits = current.find(frontier)
        rows = current.rows(hits.entries.location)
        records = memory.find(frontier)
        remembered = memory.rows(records.entries.location)
        # Records first: where a deleted row stays in current, its record is the candidate that counts.
        gathering.parts += _of_stored(
            remembered, records.asked + first, records.entries.location, gathering, record=True
        )
        gathering.parts += _of_stored(rows, hits.asked + first, hits.entries.location, gathering, record=False)
        further += _tied(rows["_memo"], None) + _tied(remembered["_memo"], remembered["_next_key"])
        first = len(gathering.keys)
        frontier = gathering.add_keys(further) if columns else keys.take(slice(0, 0))
        further = []
    known = _known(gathering)
    ends = known.candidates.rows["_valid_to"]
    if ends.null_count == len(ends):
        return known
    forgotten = _forgotten(known.candidates, told)
    if not len(forgotten):
        return known
    gathering.parts.append(forgotten)
    return _known(gathering)


def _forgotten(c: Candidates, told: Collection[int]) -> _Part:
    """Give the ends of versions of which no record is left: deletes that the memory forgot, truncates before the kept.

    Such a version stands closed, at a time before the next thing that is stored of its key begins. Its end comes after
    all that happened before that time.
    """
    order = c.order[c.counts[c.order]]
    group, at, stored = c.group[order], np.arange(len(order)), c.location[order] != NEW
    times = int64s(pc.coalesce(c.rows["_source_time"], c.rows["_event_time"]).cast(pa.int64()))[order]
    ends = int64s(c.rows["_valid_to"].cast(pa.int64()))[order]
    known = at[stored]
    lone = np.append(group[known][1:] != group[known][:-1], True)[: len(known)]
    follower = np.append(known[1:], 0)[: len(known)]
    same = ~lone & (c.what[order][follower] == ALIVE) & (c.location[order][follower] == c.location[order][known])
    lacks = (ends[known] != NONE) & (lone | (times[follower] > ends[known])) & ~same
    lacks &= (c.what[order][known] == ALIVE) & ~np.isin(ends[known], list(told))
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
    return _Part(
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


def _of_events(events: Events, group: Ints, gathering: _Gathering) -> _Part:
    count = len(events)
    return _Part(
        _values(events.rows, gathering.schema),
        group.astype(np.int64),
        events.major,
        events.minor,
        events.what,
        np.full(count, NEW, np.int64),
        {name: events.unset[name] for name in gathering.columns if name in events.unset},
        events.rows["_previous_key"].combine_chunks(),
        events.linked_in,
        weak=events.weak,
        linked_out=events.linked_out,
        recorded=events.what == DEAD,
        hidden=_waiting(events, gathering.columns),
    )


def _waiting(events: Events, columns: Sequence[str]) -> dict[str, Flags]:
    """Give, by column, the changes that wait and say it."""
    waits = events.what == NOTE
    if not waits.any():
        return {}
    return {n: waits & ~events.unset[n] if n in events.unset else waits for n in columns if n != REST}


def _of_stored(rows: pa.Table, group: Ints, location: Ints, gathering: _Gathering, *, record: bool) -> list[_Part]:
    """Give stored rows as candidates: the rows, and a cell for each column that came with an earlier change."""
    memo, pending = read_memo(rows["_memo"]), unset_of(rows["_pending"])
    count = len(rows)
    soft = "_deleted" in rows.column_names
    dead = np.ones(count, np.bool_) if record else (_flags(rows["_deleted"]) if soft else np.zeros(count, np.bool_))
    values = _values(rows, gathering.schema)
    unset = {name: marks.copy() for name, marks in pending.items()}
    cells = _cells(values, group, location, memo, pending, gathering)
    remembered: dict[str, Ints] = {}
    for name in gathering.columns:
        entries = _named(memo, name)
        if entries.any():
            mine = memo.older.row[entries]
            unset.setdefault(name, np.zeros(count, np.bool_))[mine] = True
            remembered[name] = np.full((count, 2), NONE, np.int64)
            remembered[name][mine] = np.stack([memo.older.major[entries], memo.older.minor[entries]], axis=1)
    whole = _Part(
        values,
        group.astype(np.int64),
        rows["_order_major"].to_numpy(),
        rows["_order_minor"].to_numpy(),
        np.where(dead, DEAD, ALIVE).astype(np.int8),
        location,
        unset,
        pa.nulls(count, pa.string()),
        np.zeros(count, np.bool_),
        linked_out=held(rows["_next_key"]) if record else np.zeros(count, np.bool_),
        recorded=np.full(count, record),
        stale=memo.stale,
        remembered=remembered,
        hidden=unset_of(pa.chunked_array([memo.hidden])),
    )
    return [whole, *_said_again(whole, memo), *([cells] if len(cells) else [])]


def _said_again(whole: _Part, memo: Memo) -> list[_Part]:
    """Give the later saying of versions that were said again; the stored row then stands for their beginning."""
    where = np.flatnonzero(memo.begin[0] != NONE)
    if not len(where):
        return []
    later = _Part(
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


def _cells(
    values: pa.Table, group: Ints, location: Ints, memo: Memo, pending: dict[str, Flags], gathering: _Gathering
) -> _Part:
    older = memo.older
    codes = pc.fill_null(pc.index_in(older.column, value_set=pa.array(gathering.columns, pa.string())), -1)
    cell = codes.to_numpy(zero_copy_only=False).astype(np.int32)
    waits = np.zeros(len(cell), np.bool_)
    for code, name in enumerate(gathering.columns):
        if name in pending:
            mine = cell == code
            waits[mine] = pending[name][older.row[mine]]
    return _Part(
        values.take(pa.array(older.row)),
        group[older.row].astype(np.int64),
        older.major,
        older.minor,
        np.full(len(cell), CELL, np.int8),
        location[older.row],
        {},
        memo.linked_from.take(pa.array(older.row)),
        older.linked,
        cell=cell,
        fallback=~waits,
    )


def _named(memo: Memo, name: str) -> Flags:
    marks: Flags = pc.equal(memo.older.column, name).to_numpy(zero_copy_only=False).astype(np.bool_)
    return marks


def _flags(column: pa.ChunkedArray) -> Flags:
    marks: Flags = pc.fill_null(column, False).to_numpy()
    return marks


def _values(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    if "_time" in rows.column_names:  # a record of a delete
        rows = rows.append_column("_source_time", rows["_time"])
    columns = [
        rows[f.name].cast(f.type) if f.name in rows.column_names else pa.nulls(len(rows), f.type) for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _known(gathering: _Gathering) -> Known:
    parts = gathering.parts
    count = len(gathering.keys)
    location, top, stale_before = _of_current(parts, count)

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
        gathering.columns,
    )
    texts = pa.concat_arrays([_text(part.texts) for part in parts])
    stale = tuple(
        np.concatenate([np.full(len(p), NONE, np.int64) if p.stale is None else p.stale[i] for p in parts])
        for i in (0, 1)
    )
    return Known(
        candidates,
        _links(candidates, texts, gathering.texts),
        texts,
        joined("weak", False, np.bool_),
        joined("linked_out", False, np.bool_),
        joined("recorded", False, np.bool_),
        (stale[0], stale[1]),
        location,
        top,
        stale_before,
        joined("again", False, np.bool_),
        joined("said_at", NONE, np.int64),
        {n: np.concatenate([_positions(p, n) for p in parts]) for n in {n for p in parts for n in p.remembered}},
        {n: np.concatenate([_hides(p, n) for p in parts]) for n in {n for p in parts for n in p.hidden}},
        gathering.keys,
    )


def _positions(part: _Part, name: str) -> Ints:
    return part.remembered.get(name, np.full((len(part), 2), NONE, np.int64))


def _hides(part: _Part, name: str) -> Flags:
    return part.hidden.get(name, np.zeros(len(part), np.bool_))


def _of_current(parts: Sequence[_Part], count: int) -> tuple[Ints, Ints, Ints]:
    """Give per group where its row in current lies, at which position, and what it says of waiting changes."""
    location = np.full(count, NONE, np.int64)
    top, stale = np.full((count, 2), NONE, np.int64), np.full((count, 2), NONE, np.int64)
    for part in parts:
        if part.recorded is not None and part.stale is not None and not part.recorded.any():
            location[part.group] = part.location
            top[part.group] = np.stack([part.major, part.minor], axis=1)
            stale[part.group] = np.stack(part.stale, axis=1)
    return location, top, stale


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

"""What a batch says about keys: the changes of rows, and those withheld from the table of changes. Pure."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from contracts.columns import refined_schema
from contracts.model import Contract
from lakehouse.groups import Flags, Ints, Partition
from lakehouse.lanes import WHOLE, Lane
from lakehouse.merge.keys import Keys, keys_of
from lakehouse.order import NOTHING_BEGUN, Begun, rank
from lakehouse.state.columns import key_names

# What an event says: the row is so; it is gone; a change waits; one column is so; nothing, as it turned out.
ALIVE, DEAD, NOTE, CELL, NOTHING = 0, 1, 2, 3, 4
DELETES = pa.array(["d"])
FILTERED = pa.array(["filtered"])
# Kinds of withheld changes by which a lane learns what the table of changes gets from another: a truncate, where an
# initial snapshot begins, what was refused without its key, and the end of a key whose row stands under another now.
TRUNCATED, BEGUN, KEYLESS, MOVED_KIND = "truncated", "begun", "keyless", "moved"
MOVED, TOLD = pa.array([MOVED_KIND]), pa.array([TRUNCATED, BEGUN, KEYLESS])


@dataclass(frozen=True)
class Events:
    """Events of keys; `rows` holds the contract's columns and the change's own (those a source lacks are null)."""

    rows: pa.Table
    keys: Keys
    major: Ints
    minor: Ints
    what: npt.NDArray[np.int8]
    weak: Flags  # a delete that is only told of while the key is there: rows that leave the filter
    unset: Mapping[str, Flags]  # column -> not sent by this event; of deletes only the weak ones name any

    def __len__(self) -> int:
        return len(self.major)

    def take(self, where: npt.NDArray[np.intp]) -> Events:
        """Give some of the events."""
        unset = {name: marks[where] for name, marks in self.unset.items()}
        return Events(
            self.rows.take(pa.array(where)),
            self.keys.take(where),
            self.major[where],
            self.minor[where],
            self.what[where],
            self.weak[where],
            {name: marks for name, marks in unset.items() if marks.any()},
        )

    @property
    def linked_in(self) -> Flags:
        """Mark the creates of key changes: their row stood under another key before."""
        marks: Flags = held(self.rows["_previous_key"]) & (self.what == ALIVE)
        return marks

    @property
    def linked_out(self) -> Flags:
        """Mark the deletes of key changes: their row goes on under another key."""
        marks: Flags = held(self.rows["_next_key"]) & (self.what == DEAD)
        return marks


def events_of(
    contract: Contract,
    rows: pa.Table,
    withheld: pa.Table,
    epochs: Mapping[str, int],
    highest: Mapping[Partition, tuple[int, int]],
    begun: Begun = NOTHING_BEGUN,
    lane: Lane = WHOLE,
) -> Events:
    """Give the events of a batch's accepted rows (truncates left out) and of its withheld changes, of a lane's keys."""
    truncates = pc.equal(rows["_op"], "t")
    if pc.any(truncates).as_py():
        rows = rows.filter(pc.invert(truncates))
    rows = _parted(contract, rows)
    major, minor = rank(rows, epochs, highest, begun)
    what = np.where(_equal(rows["_op"], DELETES), DEAD, ALIVE).astype(np.int8)
    weak = np.zeros(len(rows), np.bool_)
    unset = unset_of(rows["_unset"])
    if len(withheld):
        withheld = withheld.filter(pc.invert(pc.is_in(withheld["_kind"], value_set=TOLD)))
    if len(withheld):
        told, kinds = withheld.drop_columns(["_kind"]), withheld["_kind"]
        filtered, moved = _equal(kinds, FILTERED), _equal(kinds, MOVED)
        count = len(told)
        told = _parted(contract, told)  # the row before is gone, whatever becomes of the one after
        more = np.zeros(len(told) - count, np.bool_)
        waits = np.concatenate([~filtered & ~moved, more])
        gone = np.concatenate([moved, ~more])
        also = rank(told, epochs, highest, begun)
        major, minor = np.concatenate([major, also[0]]), np.concatenate([minor, also[1]])
        what = np.concatenate([what, np.where(waits, NOTE, DEAD).astype(np.int8)])
        weak = np.concatenate([weak, ~waits & ~gone])
        left_out = unset_of(told["_unset"]) if "_unset" in told.column_names else {}
        unset = {
            name: np.concatenate([_marked(unset, name, len(rows)), _marked(left_out, name, len(told)) & ~gone])
            for name in unset.keys() | left_out.keys()
        }
        rows = pa.concat_tables([rows, told], promote_options="default")
    keys = keys_of([rows[name] for name in key_names(contract)])
    unset = {name: marks & ((what != DEAD) | weak) for name, marks in unset.items()}
    events = Events(rows, keys, major, minor, what, weak, unset)
    own = lane.owns(keys)  # a key change may concern another lane as well
    return events if own.all() else events.take(np.flatnonzero(own))


def nothing_said(contract: Contract, keys: Keys) -> Events:
    """Give no events, as of a batch that says nothing."""
    nothing, none = np.zeros(0, np.int64), np.zeros(0, np.bool_)
    rows = refined_schema(contract).empty_table()
    return Events(rows, keys.take(slice(0, 0)), nothing, nothing, nothing.astype(np.int8), none, {})


def _parted(contract: Contract, rows: pa.Table) -> pa.Table:
    """Give an update that changed the key (of a table whose key only the contract names) as a delete and a create."""
    ends = ended_keys(contract, rows)
    return pa.concat_tables([rows, ends]) if len(ends) else rows


def ended_keys(contract: Contract, rows: pa.Table) -> pa.Table:
    """Give the deletes of the keys that updates changed, of a table whose key only the contract names."""
    if rows["_previous_key"].null_count == len(rows):
        return rows.slice(0, 0)
    changed = rows.filter(pc.and_(pc.equal(rows["_op"], "u"), pc.is_valid(rows["_previous_key"])))
    if not len(changed):
        return changed
    before = parsed_keys(changed["_previous_key"].to_pylist(), contract, changed.schema)
    after = json_keys(changed.select(before.column_names))
    told = {**dict(zip(before.column_names, before.columns, strict=True)), "_op": pa.repeat("d", len(changed))}
    told |= {"_next_key": after, "_previous_key": pa.nulls(len(changed), pa.string())}
    for name, column in told.items():
        place = changed.schema.get_field_index(name)
        changed = changed.set_column(place, changed.schema.field(name), column)
    whole = np.all([pc.is_valid(column).to_numpy() for column in before.columns], axis=0)
    return changed.filter(pa.array(whole))


def json_keys(rows: pa.Table) -> pa.StringArray:
    """Give keys as JSON objects, as _previous_key and _next_key hold them. For few rows."""
    written = [
        orjson.dumps(_finite(row), default=_json_value, option=orjson.OPT_PASSTHROUGH_DATETIME)
        for row in rows.to_pylist()
    ]
    return pa.array(written, pa.binary()).cast(pa.string())


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """Give a row with the numbers that JSON does not know as text: they would be null."""
    return {n: str(v) if isinstance(v, float) and not math.isfinite(v) else v for n, v in row.items()}


def _json_value(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)


def unset_of(lists: pa.ChunkedArray) -> dict[str, Flags]:
    """Give, by column, which rows name it in their list."""
    if lists.null_count == len(lists):
        return {}
    whole = lists.combine_chunks()
    names, parents = whole.flatten(), pc.list_parent_indices(whole).to_numpy()
    encoded = names.dictionary_encode()
    marks: dict[str, Flags] = {}
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    for code, name in enumerate(encoded.dictionary.to_pylist()):
        marks[name] = np.zeros(len(lists), np.bool_)
        marks[name][parents[codes == code]] = True
    return marks


def lists_of(marks: Mapping[str, Flags], length: int) -> pa.Array:
    """Give per row the names marked, null where there are none: the opposite of unset_of."""
    named = {name: flags for name, flags in marks.items() if flags.any()}
    if not named:
        return pa.nulls(length, pa.list_(pa.string()))
    rows = np.concatenate([np.flatnonzero(flags) for flags in named.values()])
    which = np.repeat(np.arange(len(named)), [int(flags.sum()) for flags in named.values()])
    order = np.argsort(rows, kind="stable")
    names = pa.array(list(named), pa.string()).take(pa.array(which[order]))
    return lists_at(rows[order], names, length)


def lists_at(rows: npt.NDArray[np.intp], values: pa.Array, length: int) -> pa.ListArray:
    """Give lists of values by ascending row, null for rows without a value."""
    counts = np.bincount(rows, minlength=length)
    ends = np.cumsum(counts, dtype=np.int32)
    offsets = pa.array(np.concatenate(([0], ends)).astype(np.int32), mask=np.concatenate((counts == 0, [False])))
    return pa.ListArray.from_arrays(offsets, values)


def _marked(marks: Mapping[str, Flags], name: str, length: int) -> Flags:
    return marks[name] if name in marks else np.zeros(length, np.bool_)


def _equal(column: pa.ChunkedArray, to: pa.Array) -> Flags:
    marks: Flags = pc.is_in(column, value_set=to).to_numpy()
    return marks


def held(column: pa.ChunkedArray) -> Flags:
    """Mark the values that are not null."""
    if column.null_count == len(column):
        return np.zeros(len(column), np.bool_)
    marks: Flags = pc.is_valid(column).to_numpy()
    return marks


def parsed_keys(texts: Sequence[str], contract: Contract, schema: pa.Schema) -> pa.Table:
    """Give keys written as JSON objects (as _previous_key and _next_key hold them) as the key's columns, typed.

    A key that lacks a column, or has one of another type, is left out: such a link leads nowhere.
    """
    fields = [schema.field(name) for name in key_names(contract)]
    read = [orjson.loads(text) for text in texts]  # key changes are rare
    columns = [_typed([key.get(field.name) for key in read], field.type) for field in fields]
    return pa.table(columns, pa.schema(fields))


def _typed(values: list[object], kind: pa.DataType) -> pa.Array:
    try:
        if pa.types.is_binary(kind):
            return pa.array([None if v is None else bytes.fromhex(str(v)) for v in values], kind)
        if pa.types.is_string(kind):
            return pa.array([v if v is None or isinstance(v, str) else orjson.dumps(v).decode() for v in values], kind)
        if any(isinstance(value, str) for value in values):
            return pa.array([None if v is None else str(v) for v in values], pa.string()).cast(kind)
        return pa.array(values, kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return pa.nulls(1, kind) if len(values) == 1 else pa.concat_arrays([_typed([v], kind) for v in values])

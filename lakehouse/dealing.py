"""A stream's section dealt out to its lanes: each gets the changes of its keys, and all of them the same ranges. Pure.

What concerns no key (rejects, other records, truncates) is in the first lane, and so counts once. A lane that must know
of a change of another one (a truncate; where an initial snapshot begins; what was refused without its key and may be a
row of one; the end of a key whose row goes on under a key of another lane) is told by a withheld change.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.columns import WITHHELD_META, withheld_schema
from contracts.model import Contract
from lakehouse.groups import Flags, Ints
from lakehouse.lanes import lane_numbers, lanes
from lakehouse.merge.keys import keys_of
from lakehouse.order import begun_in
from lakehouse.segments import Section
from lakehouse.state.columns import key_names
from lakehouse.state.events import BEGUN, KEYLESS, MOVED_KIND, TOLD, TRUNCATED, ended_keys
from lakehouse.state.snapshots import keyless


def deal(section: Section, contract: Contract) -> list[Section]:
    """Give the section of each lane that the contract wants, by lane; the section itself where it is one."""
    count = contract.state.lanes
    if count == 1:
        return [section]
    rows = _numbers(section.rows, contract, count)
    withheld = _told(section, contract, rows)
    others = _numbers(withheld, contract, count)
    told = pc.is_in(withheld["_kind"], value_set=TOLD).to_numpy()
    return [
        replace(
            section,
            rows=_of(section.rows, rows == lane.number),
            rejects=section.rejects if lane.first else section.rejects.slice(0, 0),
            others=section.others if lane.first else section.others.slice(0, 0),
            withheld=_of(withheld, told | (others == lane.number)),
            lane=lane,
        )
        for lane in lanes(count)
    ]


def _numbers(rows: pa.Table, contract: Contract, count: int) -> Ints:
    """Give the lane of each row; the first where a row has no whole key."""
    numbers = np.zeros(len(rows), np.int64)
    if not len(rows):
        return numbers
    columns = [rows[name] for name in key_names(contract)]
    whole = np.all([pc.is_valid(column).to_numpy() for column in columns], axis=0)
    if not whole.all():
        columns = [column.filter(pa.array(whole)) for column in columns]
    numbers[whole] = lane_numbers(keys_of(columns), count)
    return numbers


def _told(section: Section, contract: Contract, numbers: Ints) -> pa.Table:
    """Give the withheld changes, with those by which lanes learn of each other's rows."""
    rows, withheld = section.rows, section.withheld
    parts = [withheld] if len(withheld) else []
    parts += [
        _shaped(rows.filter(pc.equal(rows["_op"], "t")), contract, TRUNCATED),
        _shaped(_first_read(rows), contract, BEGUN),
        _shaped(keyless(section.rejects, withheld), contract, KEYLESS),
        _shaped(_moved(rows, numbers, contract), contract, MOVED_KIND),
    ]
    if len(withheld):
        moved = _moved(withheld, _numbers(withheld, contract, contract.state.lanes), contract)
        parts.append(_shaped(moved, contract, MOVED_KIND))
    told = [part for part in parts if len(part)]
    return pa.concat_tables(told, promote_options="default") if told else WITHHELD_META.empty_table()


def _first_read(rows: pa.Table) -> pa.Table:
    """Give the rows with which initial snapshots begin: a change's rank depends on the snapshot before it."""
    begun = [(topic, number, at) for (topic, number), own in begun_in(rows).items() for at, _ in own]
    if not begun:
        return rows.slice(0, 0)
    places = _places(rows)
    return rows.take(pa.array([places.index(place) for place in begun], pa.int64()))


def _moved(rows: pa.Table, numbers: Ints, contract: Contract) -> pa.Table:
    """Give the ends of the keys that updates in other lanes changed."""
    ended = ended_keys(contract, rows)
    if not len(ended):
        return ended
    updates = dict(zip(_places(rows), numbers.tolist(), strict=True))  # such key changes are rare
    elsewhere = _numbers(ended, contract, contract.state.lanes) != np.array([updates[p] for p in _places(ended)])
    return ended.filter(pa.array(elsewhere))


def _places(rows: pa.Table) -> list[tuple[str, int, int]]:
    columns = [rows[name].to_pylist() for name in ("_topic", "_partition", "_offset")]
    return list(zip(*columns, strict=True))


def _shaped(rows: pa.Table, contract: Contract, kind: str) -> pa.Table:
    schema, names = withheld_schema(contract), rows.column_names
    if not len(rows):
        return schema.empty_table()
    columns = [
        pa.repeat(kind, len(rows))
        if f.name == "_kind"
        else rows[f.name].cast(f.type)
        if f.name in names
        else pa.nulls(len(rows), f.type)
        for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _of(rows: pa.Table, marks: Flags) -> pa.Table:
    return rows if marks.all() else rows.filter(pa.array(marks))

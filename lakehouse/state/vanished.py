"""Rows of current that a complete snapshot does not hold: which they are, and their ends."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from contracts.model import Contract
from lakehouse.anchor import Floor
from lakehouse.groups import Ints
from lakehouse.merge.indexed import FLAGS, REMEMBERS, IndexedTable
from lakehouse.merge.keys import concat_keys, keys_of
from lakehouse.state.columns import key_names
from lakehouse.state.events import DEAD, Events
from lakehouse.state.floors import locations_below
from lakehouse.state.memo import read_memo


def vanished(table: IndexedTable, topic: str, floor: Floor, events: Events) -> Ints:
    """Give where the rows of current lie that a complete snapshot (its floor) does not hold; asks every entry.

    A row of which the snapshot's own waits in quarantine, or a newer change, is there; so is one of which the events,
    which are not in the table yet, bring a row of the snapshot or a newer change.
    """
    found = locations_below(table, topic, floor)
    waiting = found[(found & REMEMBERS) != 0]
    if len(waiting):
        major, minor = read_memo(table.rows(waiting, ["_memo"])["_memo"]).stale
        there = (major > floor[0]) | ((major == floor[0]) & (minor >= floor[1]))
        found = np.setdiff1d(found, waiting[there])
    locations: Ints = found & ~FLAGS
    brought = (events.major > floor[0]) | ((events.major == floor[0]) & (events.minor >= floor[1]))
    rows = table.last(events.keys.take(brought)).entries.location
    locations = locations[~np.isin(locations, rows & ~FLAGS)]
    if "_deleted" in table.table.shape.columns.names:
        kept = table.rows(locations, ["_deleted"])["_deleted"]
        locations = locations[~kept.to_numpy()]
    return locations


def ending(table: IndexedTable, contract: Contract, locations: Ints, floor: Floor, events: Events) -> Events:
    """Give the events with the end of the rows at locations, just below the snapshot that lacks them."""
    keys = key_names(contract)
    held = table.rows(locations, [*keys, "_topic"])
    count = len(held)
    time = pa.scalar(floor[2], pa.int64()).cast(events.rows.schema.field("_source_time").type)
    told = {
        **{name: held[name] for name in (*keys, "_topic")},
        "_op": pa.repeat("d", count),
        "_source_time": pa.repeat(time, count),
        "_event_time": pa.repeat(time, count),
    }
    columns = [told.get(f.name, pa.nulls(count, f.type)) for f in events.rows.schema]
    rows = pa.Table.from_arrays(columns, schema=events.rows.schema)
    return Events(
        pa.concat_tables([events.rows, rows]),
        concat_keys([events.keys, keys_of([held[name] for name in keys])]),
        np.concatenate([events.major, np.full(count, floor[0])]),
        np.concatenate([events.minor, np.full(count, floor[1] - 1)]),
        np.concatenate([events.what, np.full(count, DEAD, np.int8)]),
        np.concatenate([events.weak, np.zeros(count, np.bool_)]),
        {name: np.concatenate([marks, np.zeros(count, np.bool_)]) for name, marks in events.unset.items()},
    )

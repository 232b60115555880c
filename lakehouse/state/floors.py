"""Floors: what a TRUNCATE of the source, or a new snapshot, says of all rows below its position.

A truncate's floor is durable (it stands in every commit of the anchor), because older rows may still come on other
partitions. Several are kept, for the history of rows that come late.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.model import Contract, Truncate
from lakehouse.anchor import Floor, Floors
from lakehouse.errors import TruncateRefused
from lakehouse.groups import Flags, Ints
from lakehouse.kind import Batch
from lakehouse.merge.indexed import IndexedTable
from lakehouse.order import rank


def raised(contract: Contract, batch: Batch, epochs: Mapping[str, int]) -> dict[str, list[Floor]]:
    """Give the floors that the batch's truncates set, by topic, when the contract's policy is to apply them.

    Raises TruncateRefused when the policy is to fail.
    """
    if not contract.keeps_state or contract.state.truncate is Truncate.IGNORE:
        return {}
    told = [part for part in (batch.rows, batch.withheld) if len(part)]
    truncates = [marked for part in told if len(marked := part.filter(pc.equal(part["_op"], "t")))]
    if not truncates:
        return {}
    rows = pa.concat_tables(truncates, promote_options="default")
    if contract.state.truncate is Truncate.FAIL:
        topic, partition, offset = (rows[name][0].as_py() for name in ("_topic", "_partition", "_offset"))
        raise TruncateRefused(contract.stream, topic, partition, offset)
    major, minor = rank(rows, epochs, batch.highest, batch.begun)
    times = pc.coalesce(rows["_source_time"], rows["_event_time"]).cast(pa.int64()).to_pylist()
    found: dict[str, list[Floor]] = {}
    for topic, one, two, time in zip(rows["_topic"].to_pylist(), major.tolist(), minor.tolist(), times, strict=True):
        found.setdefault(topic, []).append((one, two, time))
    return found


def above_floors(topics: pa.ChunkedArray, major: Ints, minor: Ints, floors: Floors) -> Flags:
    """Mark the rows that stand above every floor of their topic."""
    above = np.ones(len(major), np.bool_)
    for topic, own in floors.items():
        highest = own[-1]
        below = (major < highest[0]) | ((major == highest[0]) & (minor < highest[1]))
        if below.any():
            above &= ~(below & pc.fill_null(pc.equal(topics, topic), False).to_numpy())
    return above


def clipped(
    topics: pa.ChunkedArray,
    position: Ints,
    follower: Ints,
    end: pa.Array,
    floors: Floors,
) -> pa.Array:
    """Give when versions end (position: n x 2; follower: position of what follows them): at the first floor above."""
    for topic, own in floors.items():
        mine: Flags = pc.fill_null(pc.equal(topics, topic), False).to_numpy()
        done = np.zeros(len(position), np.bool_)
        for major, minor, time in own:
            below = _below(position, major, minor) & ~_below(follower, major, minor) & mine & ~done
            if below.any():
                done |= below
                end = pc.if_else(pa.array(below), pa.scalar(time, pa.int64()).cast(end.type), end)
    return end


def locations_below(table: IndexedTable, topic: str, floor: Floor) -> Ints:
    """Give the locations (with their flags) of a topic's stored rows below a floor; asks every entry."""
    locations = table.below(floor[0], floor[1]).location
    topics = table.rows(locations, ["_topic"])["_topic"]
    mine: Flags = pc.fill_null(pc.equal(topics, topic), False).to_numpy()
    below: Ints = locations[mine]
    return below


def _below(position: Ints, major: int, minor: int) -> Flags:
    marks: Flags = (position[:, 0] < major) | ((position[:, 0] == major) & (position[:, 1] < minor))
    return marks

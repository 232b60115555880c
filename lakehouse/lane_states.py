"""What the lanes of a stream remember, put together in its anchor's commits and taken apart again. Pure.

Each lane's commit replaces its own part on top of the newest commit; nothing else of a part is ever judged by another
lane. The stream's own values (watermark, counts, partitions) follow from the parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lakehouse.anchor import AnchorState, Partition, PartitionState, merged_floors
from lakehouse.errors import LanesOver
from lakehouse.lanes import Lane
from lakehouse.lives import merged_lives

NOTHING_FOUND = {"found": 0, "removed": 0}


def put_together(own: AnchorState, newest: AnchorState | None) -> AnchorState:
    """Give the stream's state with one lane's own state in it, on top of what the newest commit says.

    A state that is no lane's own is given back as it is.
    """
    if own.lane is None:
        return own
    part = replace(own, lanes=1, tables={}, lives={})
    parts = {**(newest.parts if newest else {}), own.lane: part}
    tables = dict(newest.tables) if newest else {}
    for kind, (table, version) in own.tables.items():
        seen = tables.get(kind)
        tables[kind] = (table, max(version, seen[1]) if seen and seen[0] == table else version)
    topics = {**(newest.topics if newest else {}), **own.topics}
    lives = merged_lives(own.lives, newest.lives if newest else {})
    return replace(_stream(own, parts, own.lanes), tables=tables, topics=topics, lives=lives)


def part_of(state: AnchorState, lane: Lane) -> AnchorState:
    """Give what the stream's state says for one lane; what is the stream's own (topics, lives, snapshots) in it."""
    if lane.alone:
        return state
    part = state.parts.get(lane.number) or AnchorState(state.pipeline, state.stream, lane=lane.number)
    snapshots = {topic: _for_lane(one, part.snapshots.get(topic)) for topic, one in state.snapshots.items()}
    return replace(part, lanes=lane.of, topics=state.topics, lives=state.lives, snapshots=snapshots)


def verify_lanes(state: AnchorState | None, lane: Lane) -> None:
    """Raise LanesOver when a table's newest commit says another number of lanes than a lane's."""
    if state is not None and state.lanes != lane.of:
        raise LanesOver(state.stream, state.lanes, lane.of)


def dealt(state: AnchorState, lanes: Sequence[Lane]) -> AnchorState:
    """Give a state whose lanes are level for another number of lanes: each new one goes on from what all old ones saw.

    What was counted so far stands in the first lane's part.
    """
    whole = replace(state, lanes=1, parts={}, lane=None)
    if len(lanes) == 1:
        return whole
    others = {
        topic: {**one, **({} if one["found"] is None else NOTHING_FOUND)} for topic, one in state.snapshots.items()
    }
    first = replace(whole, tables={}, lives={}, lane=0)
    rest = {lane.number: replace(first, counts={}, snapshots=others, lane=lane.number) for lane in lanes[1:]}
    return replace(whole, lanes=len(lanes), parts={0: first, **rest})


def _stream(own: AnchorState, parts: Mapping[int, AnchorState], lanes: int) -> AnchorState:
    """Give what is true of a stream whose lanes say so."""
    said = [part for _, part in sorted(parts.items())]
    watermarks = [part.watermark_ms for part in said if part.watermark_ms is not None]
    counts: Counter[str] = Counter()
    for part in said:
        counts.update(part.counts)
    return replace(
        own,
        lane=None,
        lanes=lanes,
        parts=parts,
        watermark_ms=min(watermarks, default=None),
        counts=dict(counts),
        partitions=_partitions(said),
        floors=merged_floors(*(part.floors for part in said)),
        snapshots=_snapshots(said, lanes),
    )


def _partitions(parts: Iterable[AnchorState]) -> dict[Partition, PartitionState]:
    found: dict[Partition, PartitionState] = {}
    for part in parts:
        for partition, state in part.partitions.items():
            found[partition] = _further(found[partition], state) if partition in found else state
    return found


def _further(one: PartitionState, other: PartitionState) -> PartitionState:
    """Give what two lanes saw of one partition."""
    if one.epoch != other.epoch:
        return max(one, other, key=lambda state: state.epoch)
    lowest = (-1, -1)
    positions = [(s.major, s.minor) if s.major is not None and s.minor is not None else lowest for s in (one, other)]
    higher = one if positions[0] >= positions[1] else other
    return PartitionState(
        one.epoch,
        min(one.begins, other.begins),
        _highest(one.event_time, other.event_time),
        higher.major,
        higher.minor,
        _highest(one.active, other.active),
        _highest(one.end, other.end),
        _highest(one.snapshot, other.snapshot),
    )


def _highest(*values: int | None) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _position(snapshot: Mapping[str, Any]) -> tuple[int, int]:
    return snapshot["major"], snapshot["minor"]


def _snapshots(parts: Sequence[AnchorState], lanes: int) -> dict[str, dict[str, Any]]:
    """Give each topic's newest snapshot; it is compared once every lane has compared its own keys with it."""
    made: dict[str, dict[str, Any]] = {}
    for topic in sorted({topic for part in parts for topic in part.snapshots}):
        said = [part.snapshots[topic] for part in parts if topic in part.snapshots]
        newest = max(map(_position, said))
        same = [one for one in said if _position(one) == newest]
        found = [one["found"] for one in same if one["found"] is not None]
        made[topic] = {
            **same[0],
            "last_at": _highest(*(one["last_at"] for one in same)),
            "over_at": _highest(*(one.get("over_at") for one in same)),
            "keyless": any(one.get("keyless", False) for one in same),
            "ends": next((one["ends"] for one in same if one["ends"] is not None), None),
            "found": sum(found) if len(found) == lanes else None,
            "removed": sum(one["removed"] for one in same),
        }
    return made


def _for_lane(stream: Mapping[str, Any], own: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Give a snapshot as one lane sees it: where it stands is the stream's, what was found is the lane's."""
    if own is None or _position(own) != _position(stream):
        return {**stream, "ends": None, "found": None, "removed": 0}
    return {**own, "last_at": stream["last_at"], "over_at": stream.get("over_at")}

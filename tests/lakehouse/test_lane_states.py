"""What lanes remember is put together in one state and taken apart again; a stream stands where its slowest does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lakehouse.anchor import AnchorState, PartitionState
from lakehouse.errors import LanesOver, RetentionLoss
from lakehouse.lake import Lake
from lakehouse.lane_states import dealt, part_of, put_together, verify_lanes
from lakehouse.lanes import WHOLE, Lane, lanes
from lakehouse.lives import Life, Restart
from lakehouse.standing import standing_of
from tests.lakehouse.rows import NOW, TOPIC, contract, no_gaps, row, section, tables, write
from tests.lakehouse.state.test_lanes import in_lanes

P = ("t", 0)
SNAPSHOT = {
    "major": 5, "minor": 0, "time": 1, "last_at": None, "over_at": None, "ends": None, "keyless": False, "found": None,
    "removed": 0,
}  # fmt: skip


def own(number: int, of: int = 2, **said: Any) -> AnchorState:
    return AnchorState("p", "s", lane=number, lanes=of, **said)


def test_each_commit_replaces_its_own_part_and_the_stream_follows_from_all() -> None:
    one = own(0, watermark_ms=20, counts={"read": 3}, partitions={P: PartitionState(0, 4, 7, 9, 1)}, topics={"t": "id"})
    other = own(1, watermark_ms=10, counts={"read": 4}, partitions={P: PartitionState(0, 5, 8, 9, 0)})
    state = put_together(other, put_together(one, None))
    assert (state.lanes, state.lane, state.watermark_ms, state.counts) == (2, None, 10, {"read": 7})
    assert state.partitions == {P: PartitionState(0, 4, 8, 9, 1)} and state.topics == {"t": "id"}
    again = AnchorState.from_json(state.to_json())
    assert again == state
    assert part_of(again, Lane(0, 2)) == replace(one, tables={})
    newer = put_together(replace(one, watermark_ms=30, counts={"read": 5}), again)
    assert (newer.watermark_ms, newer.counts) == (10, {"read": 9})
    assert part_of(newer, Lane(1, 2)).watermark_ms == 10


def test_the_state_of_a_stream_with_one_lane_is_what_it_was() -> None:
    state = AnchorState("p", "s", counts={"read": 1})
    assert put_together(state, AnchorState("p", "s")) is state and part_of(state, WHOLE) is state
    assert "lanes" not in state.to_json() and "parts" not in state.to_json()


def test_a_snapshot_is_compared_once_every_lane_has_compared_its_keys() -> None:
    state = put_together(own(0, snapshots={"t": {**SNAPSHOT, "last_at": 7}}), None)
    seen = part_of(put_together(own(1), state), Lane(1, 2))
    assert dict(seen.snapshots["t"]) == {**SNAPSHOT, "last_at": 7}
    found = {**SNAPSHOT, "last_at": 7, "ends": {"0": 3}, "found": 2, "removed": 2}
    half = put_together(own(1, snapshots={"t": found}), state)
    assert (half.snapshots["t"]["found"], part_of(half, Lane(0, 2)).snapshots["t"]["found"]) == (None, None)
    both = put_together(own(0, snapshots={"t": {**found, "found": 1}}), half)
    assert (both.snapshots["t"]["found"], both.snapshots["t"]["removed"]) == (3, 4)
    assert sum(part.snapshots["t"]["found"] for part in dealt(both, lanes(3)).parts.values()) == 3


def test_what_was_decided_of_epochs_is_the_stream_s_and_of_restarts_the_first_counts() -> None:
    one, other = (own(n, partitions={P: PartitionState(1, 0)}) for n in range(2))
    told = {"t": Life(1, ({0: 3},), asked=True, restarts={0: Restart(9, 50, 0, 7), 1: Restart(4, 50, 0)})}
    state = put_together(replace(one, lives=told), None)
    seen = part_of(state, Lane(1, 2))
    assert seen.lives == told and told["t"] == AnchorState.from_json(state.to_json()).life("t")
    assert state.parts[0].lives == {}
    restarts = {0: Restart(8, 50, 0), 1: Restart(5, 50, 0)}
    both = put_together(replace(other, lives={"t": replace(told["t"], asked=False, restarts=restarts)}), state)
    assert both.life("t") == replace(told["t"], restarts={0: Restart(8, 50, 0), 1: Restart(4, 50, 0)})
    later = put_together(replace(other, partitions={P: PartitionState(2, 0)}, lives={"t": Life(2)}), both)
    assert later.lives["t"] == Life(2) and put_together(replace(one, lives=told), later).lives["t"] == Life(2)
    assert dealt(both, lanes(1)).lives == both.lives == part_of(dealt(both, lanes(3)), Lane(2, 3)).lives


def test_what_is_said_of_an_epoch_that_is_over_holds_no_more() -> None:
    state = AnchorState("p", "s", partitions={P: PartitionState(2, 0)}, lives={"t": Life(1, ({0: 3},))})
    assert state.life("t") == Life(2, asked=True) and state.life("other") == Life(0)
    assert "lives" not in AnchorState("p", "s").to_json()


def test_new_lanes_go_on_from_what_all_old_ones_saw() -> None:
    state = put_together(own(1, counts={"read": 4}, watermark_ms=5), put_together(own(0, counts={"read": 3}), None))
    three = dealt(state, lanes(3))
    assert (three.lanes, three.counts, sorted(three.parts)) == (3, {"read": 7}, [0, 1, 2])
    assert [part_of(three, lane).counts for lane in lanes(3)] == [{"read": 7}, {}, {}]
    assert {part_of(three, lane).watermark_ms for lane in lanes(3)} == {5}
    assert dealt(three, lanes(1)).parts == {} and dealt(three, lanes(1)).counts == {"read": 7}
    with pytest.raises(LanesOver, match="the tables have 3 lanes, this run was started for 2"):
        verify_lanes(three, Lane(0, 2))


def test_a_stream_stands_where_its_slowest_lane_does_and_a_lane_begins_where_others_did(lake: Lake) -> None:
    of = in_lanes(contract(tables=("changes", "history", "current")), 2)
    first, second = (tables(lake, of, lane=lane) for lane in lanes(2))
    ranges = section([row(n) for n in range(5, 10)], of=of).ranges
    empty = section([], of=of, ranges=ranges)
    refs = {n: write(lake, replace(empty, lane=Lane(n, 2))) for n in range(2)}
    first.commit(refs[0], gaps=no_gaps, now_ms=NOW)
    assert standing_of(lake, of, "test").progress == {(TOPIC, 0): 4}
    assert (first.progress(), second.progress()) == ({(TOPIC, 0): 9}, {(TOPIC, 0): 4})
    later = write(lake, replace(empty, ranges=(replace(ranges[0], first=7, last=9, records=3),), lane=Lane(1, 2)))
    with pytest.raises(RetentionLoss):
        second.commit(later, gaps=no_gaps, earliest=lambda *_: 7, now_ms=NOW)
    second.commit(refs[1], gaps=no_gaps, now_ms=NOW)
    assert standing_of(lake, of, "test").progress == {(TOPIC, 0): 9}
    with pytest.raises(LanesOver):
        tables(lake, in_lanes(of, 1)).commit(refs[1], gaps=no_gaps, now_ms=NOW)

"""Rows of a new snapshot that are quarantined: with their key they are there, without it nobody knows which are."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from contracts.model import Contract, Vanished
from lakehouse.dealing import deal
from lakehouse.identity import TopicIdentity
from lakehouse.lake import Lake
from lakehouse.lanes import lanes
from lakehouse.segments import Range
from tests.lakehouse.rows import NOW, reject, section, tables, write
from tests.lakehouse.state.source import TOPIC, contract
from tests.lakehouse.state.test_snapshots import all_readable, change, read
from tests.lakehouse.state.test_state_laws import held

OTHER = "shop.other"
READ = {"_op": "r", "_position_minor": 100}
KEYED = {"_key": '{"id": 1}', **READ}


def after_a_snapshot(lake: Lake, of: Contract, refused: list[dict[str, Any]], told: list[dict[str, Any]]) -> set[int]:
    """Give what is left of rows 0 to 3 after a snapshot that holds row 0, and of which a record is refused."""
    streams = {lane: tables(lake, of, lane=lane) for lane in lanes(of.state.lanes)}

    def commit(now_ms: int, *rows: dict[str, Any], **beside: Any) -> None:
        last = max(row["_offset"] for row in rows)
        first = min(row["_offset"] for row in rows)
        ranges = [Range(TOPIC, 0, first - 1 if first else None, first, last, last - first + 1)]
        if any(row["_topic"] == OTHER for row in beside.get("rejects", ())):
            ranges.append(Range(OTHER, 0, None, 0, 0, 1))
        ends = {(topic, 0): last + 1 if topic == TOPIC else int(now_ms > NOW) for topic in of.topics}
        identity = TopicIdentity({TOPIC: "id"}, ends, time.monotonic())
        for ref in write(lake, *deal(section(rows, of=of, ranges=ranges, **beside), of)):
            streams[ref.lane].commit([ref], gaps=all_readable, now_ms=now_ms, identity=identity)

    commit(NOW, *(change(n, n, 10 + n) for n in range(4)))
    commit(NOW + 1_000, read(4, 0, 100), read(6, 0, 100, word="last"), rejects=refused, withheld=told)
    for n in range(3):
        commit(NOW + 2_000 + n * 1_000, change(7 + n, 0, 300 + n))
    state = next(iter(streams.values())).anchor.state()
    assert state is not None and state.snapshots[TOPIC]["found"] == 4 - len({0, *(row["id"] for row in told)})
    return {key for (key,) in held(lake, "docs", "id")}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("refused", "left"),
    [({}, {0, 1, 2, 3}), (READ, {0, 1, 2, 3}), ({"_op": "u"}, {0}), (KEYED, {0, 1})],
    ids=["unreadable", "a row of a snapshot", "a change", "with its key"],
)
def test_nothing_is_removed_when_a_row_of_the_snapshot_is_refused_without_its_key(
    local: Lake, refused: dict[str, Any], left: set[int], count: int
) -> None:
    of = contract(vanished=Vanished.DELETE, vanished_share=1.0, lanes=count)
    told = [read(5, 1, 100) | {"_kind": "rejected"}] if "_key" in refused else []
    assert after_a_snapshot(local, of, [reject(5, topic=TOPIC) | refused], told) == left


def test_a_row_without_its_key_may_be_one_that_moved_to_another_topic(local: Lake) -> None:
    of = contract(vanished=Vanished.DELETE, vanished_share=1.0)
    refused = [reject(0, topic=OTHER) | READ, reject(5, topic=TOPIC) | {"_op": "u"}]
    assert after_a_snapshot(local, dataclasses.replace(of, topics=(TOPIC, OTHER)), refused, []) == {0, 1, 2, 3}

"""A new snapshot of a table whose leaves have topics of their own: a row that another leaf holds has not vanished."""

from __future__ import annotations

import dataclasses
import random
import tempfile
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.model import Contract, Vanished
from lakehouse.dealing import deal
from lakehouse.identity import TopicIdentity
from lakehouse.lake import Lake
from lakehouse.lanes import lanes
from tests.lakehouse.rows import NOW, section, tables, write
from tests.lakehouse.state.source import contract
from tests.lakehouse.state.test_snapshots import all_readable, change, read
from tests.lakehouse.state.test_state_laws import LAW, held

A, B, C = "shop.docs_a", "shop.docs_b", "shop.docs_c"
ENDED, LAST = "last_in_data_collection", "last"
Places = dict[tuple[str, int], int]  # topic, partition -> offset


def leaves(*topics: str, **state: Any) -> Contract:
    told = {"vanished": Vanished.DELETE, "vanished_share": 1.0} | state
    return dataclasses.replace(contract(**told), topics=topics)


def at(topic: str, row: dict[str, Any]) -> dict[str, Any]:
    return row | {"_topic": topic}


class Commits:
    """Commits rows of any topic and partition in all lanes, a second apart, with the ends that Kafka says."""

    def __init__(self, lake: Lake, of: Contract) -> None:
        self.of, self._lake = of, lake
        self._streams = {lane: tables(lake, of, lane=lane) for lane in lanes(of.state.lanes)}
        self._reached: Places = {}
        self._commits = 0

    def __call__(self, *rows: dict[str, Any], ends: Places | None = None) -> None:
        """Commit; ends: of partitions that hold more than these rows."""
        self._commits += 1
        found: dict[tuple[str, int], list[int]] = {}
        for row in rows:
            found.setdefault((row["_topic"], row["_partition"]), []).append(row["_offset"])
        prev = {place: min(offsets) - 1 for place, offsets in found.items() if min(offsets)}
        self._reached |= {place: max(offsets) + 1 for place, offsets in found.items()}
        topics = {topic: topic for topic in self.of.topics}
        identity = TopicIdentity(topics, self._reached | (ends or {}), time.monotonic())
        made = section(rows, of=self.of, prev=prev)
        for ref in write(self._lake, *deal(made, self.of)):
            now_ms = NOW + self._commits * 1000
            self._streams[ref.lane].commit([ref], gaps=all_readable, now_ms=now_ms, identity=identity)

    def found(self, topic: str) -> tuple[int | None, int]:
        """Give how many rows the topic's newest snapshot lacks, and how many of them were removed."""
        (*_, last) = self._streams.values()
        state = last.anchor.state()
        assert state is not None
        return state.snapshots[topic]["found"], state.snapshots[topic]["removed"]


@pytest.mark.parametrize("policy", [Vanished.REPORT, Vanished.DELETE])
def test_a_row_that_moved_to_a_leaf_that_is_read_later_has_not_vanished(local: Lake, policy: Vanished) -> None:
    commit = Commits(local, leaves(A, B, vanished=policy))
    commit(*(at(A, change(n, n, 10 + n)) for n in range(3)), at(B, change(0, 5, 15)))
    commit(at(A, read(3, 0, 100, word=ENDED)))  # row 1 moved to the other leaf, row 2 is gone
    commit(at(B, change(1, 5, 16)))
    commit(at(B, change(2, 5, 17)))
    assert held(local, "docs", "id") == [(0,), (1,), (2,), (5,)]
    commit(at(B, read(3, 1, 100)), at(B, read(4, 5, 100, word=LAST)))
    for n in range(2):
        commit(at(B, change(5 + n, 5, 300 + n)))
    removed = policy is Vanished.DELETE
    assert held(local, "docs", "id") == [(0,), (1,), *([] if removed else [(2,)]), (5,)]
    assert (commit.found(A), commit.found(B)) == ((1, 1 if removed else 0), (0, 0))
    assert held(local, "docs_history", "id, _is_current", "id = 1") == [(1, True)]


def test_a_leaf_whose_rows_have_begun_is_waited_for_also_when_the_connector_streams_again(local: Lake) -> None:
    commit = Commits(local, leaves(A, B))
    commit(*(at(A, change(n, n, 10 + n)) for n in range(3)))
    commit(at(A, read(3, 0, 100, word=ENDED)), at(B, read(0, 5, 100)))
    for n in range(3):
        commit(at(A, change(4 + n, 0, 300 + n)))
    assert held(local, "docs", "id") == [(0,), (1,), (2,), (5,)]
    commit(at(B, read(1, 1, 100, word=LAST)))
    for n in range(2):
        commit(at(A, change(7 + n, 0, 400 + n)))
    assert held(local, "docs", "id") == [(0,), (1,), (5,)]


@pytest.mark.parametrize("word", [ENDED, LAST])
def test_an_empty_leaf_is_not_waited_for_once_nothing_of_the_snapshot_can_follow(local: Lake, word: str) -> None:
    commit = Commits(local, leaves(A, B, C))
    commit(*(at(A, change(n, n, 10 + n)) for n in range(3)))
    commit(at(A, read(3, 0, 100)), at(A, read(4, 1, 100, word=word)))
    commit(at(A, change(5, 0, 99)))
    commit(at(A, change(6, 0, 99)))
    assert held(local, "docs", "id") == [(0,), (1,), *([] if word == LAST else [(2,)])]
    for n in range(2):  # the connector streams again: it has read all tables
        commit(at(A, change(7 + n, 0, 300 + n)))
    assert held(local, "docs", "id") == [(0,), (1,)]


def test_all_partitions_of_all_leaves_must_reach_their_ends(local: Lake) -> None:
    commit = Commits(local, leaves(A, B))
    commit(*(at(A, change(n, n, 10 + n)) for n in range(3)))
    commit(at(A, read(3, 0, 100, word=ENDED)), at(B, read(0, 5, 100, word=LAST)))
    for n in range(2):
        commit(at(A, change(4 + n, 0, 300 + n)), ends={(B, 1): 1})
    assert held(local, "docs", "id") == [(0,), (1,), (2,), (5,)]
    commit(at(B, read(0, 1, 100, 1)))
    assert held(local, "docs", "id") == [(0,), (1,), (5,)]
    assert (commit.found(A), commit.found(B)) == ((1, 1), (0, 0))


@given(st.integers(0, 10**9))
@LAW
def test_no_row_of_a_snapshot_is_ever_missed_and_all_others_go(seed: int) -> None:
    chance = random.Random(seed)
    topics = (A, B, C)[: chance.randint(1, 3)]
    before = {key: chance.choice(topics) for key in range(12)}
    after = {key: chance.choice(topics) for key in before if chance.random() < 0.7}
    kept = {key for key, leaf in before.items() if key in after or leaf not in after.values()}  # no rows, no snapshot
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        commit = Commits(lake, leaves(*topics, lanes=chance.choice([1, 1, 2])))
        kafka = Kafka(topics)
        for key, leaf in before.items():
            kafka.send(leaf, change(0, key, 10 + key, key % 2))
        commit(*kafka.ready(chance, all_of_it=True), ends=kafka.ends)
        events = [*_snapshot(topics, after), *((after[k], change(0, k, 200 + n, k % 2)) for n, k in enumerate(after))]
        while events:
            for leaf, row in [events.pop(0) for _ in range(min(len(events), chance.randint(1, 6)))]:
                kafka.send(leaf, row)
            commit(*kafka.ready(chance, all_of_it=not events), ends=kafka.ends)
            assert not set(after) - _keys(lake)
        for n in range(5):  # a lane learns of what another saw by the commit after
            kafka.send(topics[0], change(0, 99, 900 + n))
            commit(*kafka.ready(chance, all_of_it=True), ends=kafka.ends)
        assert _keys(lake) == {*kept, 99}
        assert held(lake, "docs_history", "id", "_is_current") == [(key,) for key in sorted({*kept, 99})]


class Kafka:
    """Topics of two partitions each, read by somebody who is ahead in some of them."""

    def __init__(self, topics: tuple[str, ...]) -> None:
        self.ends: Places = {(topic, partition): 0 for topic in topics for partition in (0, 1)}
        self._unread: dict[tuple[str, int], list[dict[str, Any]]] = {place: [] for place in self.ends}

    def send(self, topic: str, row: dict[str, Any]) -> None:
        place = topic, row["_partition"]
        self._unread[place].append(at(topic, row) | {"_offset": self.ends[place]})
        self.ends[place] += 1

    def ready(self, chance: random.Random, *, all_of_it: bool) -> list[dict[str, Any]]:
        """Give the next rows of each partition, none of some."""
        found = []
        for place, rows in self._unread.items():
            count = len(rows) if all_of_it else chance.randint(0, len(rows))
            found += rows[:count]
            self._unread[place] = rows[count:]
        return found


def _snapshot(topics: tuple[str, ...], after: dict[int, str]) -> list[tuple[str, dict[str, Any]]]:
    """Give the rows that a connector reads, leaf after leaf."""
    rows: list[tuple[str, dict[str, Any]]] = []
    for leaf in topics:
        own = [key for key, where in after.items() if where == leaf]
        words = ["true"] * (len(own) - 1) + [LAST if leaf == topics[-1] else ENDED]
        rows += [(leaf, read(0, key, 100, key % 2, word)) for key, word in zip(own, words, strict=False)]
    return rows


def _keys(lake: Lake) -> set[int]:
    return {key for (key,) in held(lake, "docs", "id")}

"""The law of lanes: however many committers share a stream's keys, in whatever order they commit, whichever of them is
killed and whenever, and however often their number changes, the tables are those of one committer: the truth."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.model import Contract, Storage, Truncate, Vanished
from lakehouse.commit import StreamTables
from lakehouse.dealing import deal
from lakehouse.errors import LanesOver
from lakehouse.identity import TopicIdentity
from lakehouse.lake import Lake
from lakehouse.lanes import Lane, lane_numbers, lanes
from lakehouse.merge.keys import keys_of
from lakehouse.relaning import change_lanes, levels_of, recall_lanes
from lakehouse.segments import SectionRef
from lakehouse.standing import standing_of
from lakehouse.state.table import StateTable
from tests.lakehouse.rows import NOW, no_gaps, offsets, section, tables, write
from tests.lakehouse.state.source import TOPIC, Source, contract
from tests.lakehouse.state.test_snapshots import change, read
from tests.lakehouse.state.test_state_laws import LAW, Crash, crash_at_a_table, held, ranges_of, verify

ROUNDS = 12  # of calls without sections, in which chains of key changes are completed


def in_lanes(of: Contract, count: int) -> Contract:
    return dataclasses.replace(of, state=dataclasses.replace(of.state, lanes=count))


class Fleet:
    """The committers of a stream's lanes, each with the sections that it has not committed yet."""

    def __init__(self, source: Source, lake: Lake, count: int) -> None:
        self.source, self.lake = source, lake
        self.of = in_lanes(source.contract, count)
        self.waiting: dict[Lane, list[SectionRef]] = defaultdict(list)
        self.done: dict[Lane, list[SectionRef]] = defaultdict(list)
        self.streams = {lane: self._made(lane) for lane in lanes(count)}

    def _made(self, lane: Lane) -> StreamTables:
        return tables(self.lake, self.of, lane=lane)

    def take(self, rows: list[dict[str, Any]], prev: dict[tuple[str, int], int]) -> None:
        """Refine a batch: each lane gets its section."""
        kept = [row for row in rows if row["_kind"] is None]
        apart = [row for row in rows if row["_kind"] is not None]
        whole = section(kept, of=self.of, ranges=ranges_of(rows, prev), withheld=apart)
        for ref in write(self.lake, *deal(whole, self.of)):
            self.waiting[ref.lane].append(ref)

    def commit(self, lane: Lane) -> int:
        """Let a lane commit what waits for it, perhaps die, perhaps be told of something once more."""
        random, refs = self.source.random, self.waiting[lane]
        again = random.choices(self.done[lane], k=min(len(self.done[lane]), random.choice([0, 0, 1])))
        if random.random() < 0.25:
            crash_at_a_table(self.source, self.streams[lane])
        try:
            made = self.streams[lane].commit([*again, *refs], gaps=no_gaps, now_ms=NOW).commits
        except Crash:
            self.streams[lane] = self._made(lane)
            made = self.streams[lane].commit(refs, gaps=no_gaps, now_ms=NOW).commits
        self.done[lane] += refs
        self.waiting[lane] = []
        if random.random() < 0.2:
            self.streams[lane] = self._made(lane)
        return made

    def some(self) -> None:
        """Let some of the lanes commit, in any order."""
        for lane in self.source.random.sample(list(self.streams), self.source.random.randint(0, len(self.streams))):
            self.commit(lane)

    def level(self) -> None:
        """Let all lanes commit, until none has anything to do."""
        for _ in range(ROUNDS):
            order = self.source.random.sample(list(self.streams), len(self.streams))
            if not sum([self.commit(lane) for lane in order]):
                return
        raise AssertionError("the lanes never come to rest")


def deliver(source: Source, lake: Lake, *, commits: int, count: int) -> Fleet:
    fleet = Fleet(source, lake, count)
    for rows, prev in source.in_batches(commits):
        fleet.take(rows, prev)
        fleet.some()
    fleet.level()
    return fleet


def verified(source: Source, commits: int, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        deliver(source, lake, commits=commits, count=count)
        verify(source, lake)
        assert offsets(lake, "docs_changes") == sorted(source.given)


COUNTS = st.integers(1, 4)


@given(st.integers(0, 10**9), st.integers(1, 8), COUNTS, st.booleans(), st.booleans())
@LAW
def test_lanes_share_the_keys_and_keep_the_truth(
    seed: int, commits: int, count: int, composite: bool, soft: bool
) -> None:
    source = Source(seed, contract(composite, soft_deletes=soft))
    source.run(source.random.randint(1, 40))
    verified(source, commits, count)


@given(st.integers(0, 10**9), st.integers(1, 8), COUNTS, st.booleans())
@LAW
def test_a_truncate_empties_the_tables_of_all_lanes(seed: int, commits: int, count: int, soft: bool) -> None:
    source = Source(seed, contract(truncate=Truncate.APPLY, soft_deletes=soft), truncates=True, renames=False)
    source.run(source.random.randint(1, 60))
    verified(source, commits, count)


@given(st.integers(0, 10**9), st.integers(1, 8), COUNTS, st.booleans())
@LAW
def test_what_is_withheld_marks_the_rows_of_its_lane(seed: int, commits: int, count: int, soft: bool) -> None:
    source = Source(seed, contract(soft_deletes=soft), withholds=True)
    source.run(source.random.randint(1, 60))
    verified(source, commits, count)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_many_keys_in_many_commits_of_lanes(count: int, lake: Lake) -> None:
    source = Source(count, contract(), keys=200, partitions=7)
    source.run(800)
    deliver(source, lake, commits=15, count=count)
    verify(source, lake)


@given(st.integers(0, 10**9), st.lists(COUNTS, min_size=2, max_size=4), st.booleans())
@LAW
def test_the_number_of_lanes_changes_in_the_middle(seed: int, counts: list[int], soft: bool) -> None:
    source = Source(seed, contract(soft_deletes=soft))
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        for count in counts:
            change_lanes(lake, in_lanes(source.contract, count), "test")
            source.run(source.random.randint(1, 20))
            fleet = deliver(source, lake, commits=source.random.randint(1, 3), count=count)
            assert levels_of(lake, fleet.of, "test") is None
        verify(source, lake)
        assert offsets(lake, "docs_changes") == sorted(source.given)
        state = standing_of(lake, fleet.of, "test").anchor
        assert state is not None and state.counts["read"] == len(source.given)


def test_rows_that_vanished_are_removed_by_their_lanes(lake: Lake) -> None:
    of = in_lanes(contract(vanished=Vanished.DELETE, vanished_share=0.5), 2)
    streams = {lane: tables(lake, of, lane=lane) for lane in lanes(2)}

    def commit(rows: list[dict[str, Any]], now_ms: int, ends: dict[tuple[str, int], int] | None = None) -> None:
        prev = {(TOPIC, 0): rows[0]["_offset"] - 1} if rows[0]["_offset"] else {}
        refs = {ref.lane: [ref] for ref in write(lake, *deal(section(rows, of=of, prev=prev), of))}
        identity = TopicIdentity({TOPIC: "id"}, ends, time.monotonic()) if ends else None
        for lane, stream in streams.items():
            stream.commit(refs[lane], gaps=no_gaps, now_ms=now_ms, identity=identity)

    commit([change(n, n, 10 + n) for n in range(40)], NOW)
    vanished = {key for key in range(40) if key % 5 == 0}
    left = [key for key in range(40) if key not in vanished]
    words = ["true"] * (len(left) - 1) + ["last"]
    commit([read(40 + n, key, 100, word=word) for n, (key, word) in enumerate(zip(left, words, strict=True))], NOW + 1)
    commit([change(72, 1, 300)], NOW + 2_000, {(TOPIC, 0): 74})
    assert held(lake, "docs", "count(*)") == [(40,)]
    commit([change(73, 1, 310)], NOW + 3_000)
    commit([change(74, 1, 320)], NOW + 4_000)
    assert held(lake, "docs", "id") == [(key,) for key in left]
    for stream in streams.values():
        stream.anchor.open()
        state = stream.anchor.state()
        assert state is not None
        assert (state.snapshots[TOPIC]["found"], state.snapshots[TOPIC]["removed"]) == (8, 8)
        assert all(0 < part.snapshots[TOPIC]["found"] < 8 for part in state.parts.values())


def test_a_lane_restores_its_own_index_and_a_new_number_of_lanes_builds_new_ones(
    local: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakehouse.merge.kept_index.ENTRIES", 1)
    source = Source(3, contract(), keys=60)
    source.run(80)
    fleet = deliver(source, local, commits=3, count=2)
    for stream in fleet.streams.values():
        stream.prepare()
        stream.commit([], gaps=no_gaps, now_ms=NOW)
        assert isinstance(stream.anchor, StateTable)
        stream.anchor.open()
        kept = stream.anchor.indexed
        kept.follow()
        kept.keep()
        assert kept.kept is not None
        kept.kept.wait()
        again = tables(local, fleet.of, lane=stream.lane)
        again.prepare()
        assert isinstance(again.anchor, StateTable)
        again.anchor.open()
        again.anchor.indexed.follow()
        rows = int(held(local, "docs", "count(*)")[0][0])
        assert again.anchor.indexed.count() == kept.count() < rows
    change_lanes(local, in_lanes(fleet.of, 3), "test")
    source.run(40)
    deliver(source, local, commits=3, count=3)
    verify(source, local)


@pytest.mark.parametrize("storage", list(Storage))
def test_lanes_in_threads_of_their_own_keep_the_truth(storage: Storage, local: Lake) -> None:
    source = Source(11, contract(storage=storage, truncate=Truncate.APPLY), keys=150, partitions=4)
    source.run(400)
    fleet = Fleet(source, local, 4)
    for rows, prev in source.in_batches(12):
        fleet.take(rows, prev)
    start = Barrier(4)

    def work(lane: Lane) -> None:
        start.wait()
        for ref in fleet.waiting.pop(lane):
            fleet.streams[lane].commit([ref], gaps=no_gaps, now_ms=NOW)
            done = fleet.streams[lane].maintain()
            assert not done.failures

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, list(fleet.streams)))
    fleet.level()
    verify(source, local)
    assert offsets(local, "docs_changes") == sorted(source.given)


@pytest.mark.parametrize("count", [1, 3])
def test_an_update_that_names_another_key_ends_the_old_one_in_its_lane(count: int, local: Lake) -> None:
    of = in_lanes(contract(), count)
    rows = [change(n, n, 10 + n, body="x") for n in range(12)]
    rows += [change(12 + n, 100 + n, 50 + n, body="y", _op="u", _previous_key=f'{{"id": {n}}}') for n in range(12)]
    parts = deal(section(rows, of=of), of)
    told = [row for part in parts if len(part.withheld) for row in part.withheld.to_pylist()]
    assert {row["_kind"] for row in told} == ({"moved"} if count > 1 else set())
    assert sum(len(part.rows) for part in parts) == len(rows)
    for ref in reversed(write(local, *parts)):
        tables(local, of, lane=ref.lane).commit([ref], gaps=no_gaps, now_ms=NOW)
    assert held(local, "docs", "id, body") == [(100 + n, "y") for n in range(12)]
    ended = held(local, "docs_history", "id, epoch_ms(_valid_to)", "NOT _is_current")
    assert ended == [(n, 50 + n) for n in range(12)]
    assert len(offsets(local, "docs_changes")) == len(rows)


@pytest.mark.parametrize("then", [2, 3, 1])
def test_a_change_of_lanes_that_died_between_tables_is_made_again_or_taken_back(
    then: int, local: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(5, contract(), keys=20)
    source.run(40)
    fleet = deliver(source, local, commits=3, count=2)
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(StateTable, "commit_ids", Mock(side_effect=Crash))
        change_lanes(local, in_lanes(fleet.of, 3), "test")
    source.run(20)
    ((rows, prev),) = source.in_batches(1)
    fleet.take(rows, prev)
    with pytest.raises(LanesOver):
        fleet.streams[Lane(0, 2)].commit(fleet.waiting[Lane(0, 2)], gaps=no_gaps, now_ms=NOW)
    if then == 2:  # as the levelling of lanes begins
        recall_lanes(local, fleet.of, "test")
    else:
        change_lanes(local, in_lanes(fleet.of, then), "test")
    assert levels_of(local, in_lanes(fleet.of, then), "test") is None
    again = Fleet(source, local, then)
    again.take(rows, prev)
    again.level()
    source.run(20)
    deliver(source, local, commits=2, count=then)
    verify(source, local)
    assert offsets(local, "docs_changes") == sorted(source.given)


@pytest.mark.parametrize("count", [1, 2])
def test_the_first_transaction_after_a_snapshot_ranks_alike_in_all_lanes(count: int, local: Lake) -> None:
    of = in_lanes(contract(), count)
    numbers = lane_numbers(keys_of([pa.array(range(20), pa.int64())]), 2).tolist()
    before, after = numbers.index(0), numbers.index(1)  # keys of two lanes
    first = {"_position_major": None, "_partition": 0}  # written before the snapshot, committed after it
    rows = [
        read(0, before, 100, word="last") | {"body": "large"},
        change(1, before, 90, _op="d", _next_key=f'{{"id": {after}}}') | first,
        change(2, after, 90, _previous_key=f'{{"id": {before}}}', _unset=["body"]) | first,
    ]
    refs = write(local, *deal(section(rows, of=of), of))
    for ref in reversed(refs):
        tables(local, of, lane=ref.lane).commit([ref], gaps=no_gaps, now_ms=NOW)
    for lane in lanes(count):
        tables(local, of, lane=lane).commit([], gaps=no_gaps, now_ms=NOW)
    assert held(local, "docs", "id, body, _pending") == [(after, "large", None)]


@pytest.mark.parametrize("count", [1, 3])
def test_a_refused_update_that_names_another_key_ends_the_old_one_in_its_lane(count: int, local: Lake) -> None:
    of = in_lanes(contract(), count)
    rows = [change(n, n, 10 + n, body="x") for n in range(12)]
    refused = [
        change(12 + n, 100 + n, 50 + n, _op="u", _kind="rejected", _previous_key=f'{{"id": {n}}}') for n in range(12)
    ]
    for ref in write(local, *deal(section(rows, of=of, withheld=refused), of)):
        tables(local, of, lane=ref.lane).commit([ref], gaps=no_gaps, now_ms=NOW)
    assert held(local, "docs", "id") == []

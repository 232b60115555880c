"""A source that was restored, in a topic that stays the same: from where the next epoch begins, what it sends ranks
above all that is stored, whatever the partitions, the commits and the starts around that place."""

from __future__ import annotations

import dataclasses
import tempfile
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from contracts.model import Vanished
from lakehouse.anchor import AnchorState, PartitionState
from lakehouse.commit import StreamTables
from lakehouse.dealing import deal
from lakehouse.epochs import begin_epoch, by_epoch, forget_asked, steps_of
from lakehouse.errors import EpochOver, NotBegun, PositionsRestarted
from lakehouse.lake import Lake
from lakehouse.landing import Landing
from lakehouse.lanes import Lane, lane_numbers, lanes
from lakehouse.lives import Life
from lakehouse.merge.keys import keys_of
from lakehouse.standing import Standing, standing_of
from tests.lakehouse.rows import NOW, no_gaps, offsets, section, tables, write
from tests.lakehouse.state.source import TOAST, TOPIC, Key, Row, Source, contract
from tests.lakehouse.state.test_lanes import in_lanes
from tests.lakehouse.state.test_snapshots import change, commit, read
from tests.lakehouse.state.test_state_laws import LAW, Crash, crash_at_a_table, held

HISTORY = "id, n, _is_current"
OLD = [change(0, 1, 900), change(1, 2, 910), change(2, 3, 920)]
RESTORED = [read(3, 1, 50) | {"n": 2}, change(4, 2, 60, n=3), change(5, 1, 70, _op="u", n=4)]


def standing(lake: Lake) -> Standing:
    return standing_of(lake, contract(), "test")


def life_of(lake: Lake) -> Life:
    state = standing(lake).anchor
    assert state is not None
    return state.life(TOPIC)


def started(lake: Lake, **options: Any) -> StreamTables:
    """Give a stream's tables as a start makes them: in the epochs that they stand at."""
    state = standing(lake).anchor
    return tables(lake, options.pop("of", contract()), epochs=state.epochs() if state else {}, **options)


@pytest.mark.parametrize("size", [3, 2, 1])
def test_what_comes_after_an_epoch_began_wins_over_all_that_is_stored(local: Lake, size: int) -> None:
    commit(tables(local, contract()), local, OLD, NOW)
    assert begin_epoch(local, contract(), "test", TOPIC) == Life(1, ({0: 3},), asked=True)
    assert standing(local).progress == {(TOPIC, 0): 2}  # it goes on
    for at in range(0, len(RESTORED), size):
        commit(started(local), local, RESTORED[at : at + size], NOW)
    commit(started(local), local, RESTORED, NOW)  # read again
    assert held(local, "docs", "id, n") == [(1, 4), (2, 3), (3, 1)]
    assert held(local, "docs_history", HISTORY) == [
        (1, 1, False), (1, 2, False), (1, 4, True), (2, 1, False), (2, 3, True), (3, 1, True),
    ]  # fmt: skip
    changes = [(offset, int(offset > 2), False) for offset in range(6)]
    assert held(local, "docs_changes", "_offset, _epoch, _resent") == changes


def test_a_job_of_the_epoch_before_commits_nothing_more(local: Lake) -> None:
    stream = tables(local, contract())
    commit(stream, local, OLD, NOW)
    begin_epoch(local, contract(), "test", TOPIC)
    with pytest.raises(EpochOver, match="at epoch 1 of topic"):
        commit(stream, local, RESTORED, NOW)
    assert held(local, "docs_changes", "count(*)") == [(3,)]


def test_an_epoch_that_was_asked_for_begins_once_until_a_start_asks_for_none(local: Lake) -> None:
    with pytest.raises(NotBegun):
        begin_epoch(local, contract(), "test", TOPIC)
    commit(tables(local, contract()), local, OLD, NOW)
    assert life_of(local).begins_by_asking
    begin_epoch(local, contract(), "test", TOPIC)
    assert not life_of(local).begins_by_asking
    commit(started(local), local, RESTORED, NOW)
    assert not life_of(local).begins_by_asking
    forget_asked(local, contract(), "test", TOPIC)
    forget_asked(local, contract(), "test", TOPIC)
    assert life_of(local) == Life(1, ({0: 3},)) and life_of(local).begins_by_asking
    assert begin_epoch(local, contract(), "test", TOPIC) == Life(2, ({0: 3}, {0: 6}), asked=True)
    with pytest.raises(PositionsRestarted):  # seen to have begun again: that is a reason of its own
        commit(started(local), local, [change(6, 1, 20), read(7, 1, 10)], NOW)
    assert life_of(local).begins_by_asking
    begin_epoch(local, contract(), "test", TOPIC)
    assert (life_of(local).epoch, life_of(local).begins[-1], life_of(local).pending) == (3, {0: 7}, {})


def test_an_epoch_of_a_recreated_topic_counts_as_asked_for(local: Lake) -> None:
    commit(tables(local, contract()), local, OLD, NOW)
    begin_epoch(local, contract(), "test", TOPIC)
    commit(tables(local, contract(), epochs={TOPIC: 2}), local, [read(0, 1, 50)], NOW)
    assert life_of(local) == Life(2, asked=True)
    assert begin_epoch(local, contract(), "test", TOPIC) == Life(3, ({0: 1},), asked=True)
    assert life_of(local).start == 2


def test_a_new_snapshot_finds_what_the_restored_database_lacks(local: Lake) -> None:
    of = contract(vanished=Vanished.DELETE, vanished_share=0.9)
    commit(tables(local, of), local, OLD, NOW)
    begin_epoch(local, of, "test", TOPIC)
    stream = started(local, of=of)
    commit(stream, local, [read(3, 1, 50), read(4, 2, 50, word="last")], NOW + 1)
    commit(stream, local, [change(5, 2, 60)], NOW + 2_000, {0: 6})
    commit(stream, local, [change(6, 2, 70)], NOW + 3_000)
    assert held(local, "docs", "id") == [(1,), (2,)]


def test_tables_built_from_the_changes_know_the_epochs(local: Lake) -> None:
    of = dataclasses.replace(contract(), tables=("quarantine", "changes"))
    commit(tables(local, of), local, [read(0, 1, 890), *[row | {"_offset": row["_offset"] + 1} for row in OLD]], NOW)
    begin_epoch(local, of, "test", TOPIC)
    # The first transaction of a connector ranks by the snapshot before it: by that of its own source.
    first = change(5, 1, 40, _op="u", n=7, _position_major=None)
    stream = tables(local, of, epochs={TOPIC: 1})
    commit(stream, local, [read(4, 1, 50), first, change(6, 1, 60, _op="u", n=8)], NOW)
    tables(local, contract(), epochs={TOPIC: 1}).prepare()
    assert held(local, "docs", "id, n", "id = 1") == [(1, 8)]
    assert held(local, "docs_history", HISTORY, "n IN (7, 8)") == [(1, 7, False), (1, 8, True)]
    commit(started(local), local, [change(7, 2, 65, _op="u", n=9)], NOW)
    assert held(local, "docs", "id, n") == [(1, 8), (2, 9), (3, 1)]


def test_the_epoch_is_known_where_another_table_becomes_the_anchor(local: Lake) -> None:
    alone = dataclasses.replace(contract(), tables=("quarantine", "changes"))
    commit(tables(local, alone), local, OLD, NOW)
    begin_epoch(local, alone, "test", TOPIC)
    assert standing(local).epoch(TOPIC) == 1 and standing(local).progress == {}
    commit(tables(local, contract(), epochs={TOPIC: 1}), local, RESTORED, NOW)
    assert held(local, "docs", "id, n") == [(1, 4), (2, 3), (3, 1)]
    assert (standing(local).former, standing(local).progress) == (None, {(TOPIC, 0): 5})
    begin_epoch(local, contract(), "test", TOPIC)
    fewer = standing_of(local, alone, "test")
    assert (fewer.epoch(TOPIC), sorted(fewer.begun)) == (2, [(TOPIC, 0)])
    stream = tables(local, alone, epochs={TOPIC: 2})
    commit(stream, local, [change(6, 1, 10, n=5)], NOW)
    state = stream.anchor.state()
    assert state is not None and state.life(TOPIC).begins == ({0: 3}, {0: 6})
    assert held(local, "docs_changes", "_offset, _epoch", "_offset > 1") == [(2, 0), (3, 1), (4, 1), (5, 1), (6, 2)]


def test_lanes_go_on_each_from_where_it_is(local: Lake) -> None:
    of = in_lanes(contract(), 2)
    fleet = {lane: tables(local, of, lane=lane) for lane in lanes(2)}
    lane = {n: int(lane_numbers(keys_of([pa.array([n])]), 2)[0]) for n in range(6)}
    # All that the second lane holds is below the restored positions: it sees nothing begin again, and goes on.
    give(local, fleet, [change(n, n, 10 + n if lane[n] else 900 + n) for n in range(6)])
    rows = [read(6 + n, n, 50) | {"n": 2} for n in range(6)]
    assert give(local, fleet, rows) == [Lane(0, 2)] and set(lane.values()) == {0, 1}
    assert begin_epoch(local, of, "test", TOPIC) == Life(1, ({0: 6},), asked=True)
    assert standing(local).progress == {(TOPIC, 0): 5}
    again = {lane: tables(local, of, lane=lane, epochs={TOPIC: 1}) for lane in lanes(2)}
    assert give(local, again, rows) == give(local, again, [change(12 + n, n, 60, _op="u", n=3) for n in range(6)]) == []
    assert held(local, "docs", "id, n") == [(n, 3) for n in range(6)]
    assert held(local, "docs_history", "id, n") == [(n, value) for n in range(6) for value in (1, 2, 3)]
    assert offsets(local, "docs_changes") == [(0, n) for n in range(18)]
    # Read again, its records are there, whichever epoch they were stored in.
    landing = Landing(local, of, "test", {}, "1")
    assert landing.land(section(rows, of=of), {TOPIC: 1}, NOW).held == 6
    assert offsets(local, "docs_changes") == [(0, n) for n in range(18)]


def give(lake: Lake, fleet: dict[Lane, StreamTables], rows: list[Row]) -> list[Lane]:
    """Let each lane commit its part of rows; gives those that stop because positions begin again."""
    first, of = rows[0]["_offset"], fleet[Lane(0, 2)].contract
    whole = section(rows, of=of, prev={(TOPIC, 0): first - 1} if first else None)
    stopped = []
    for ref in write(lake, *deal(whole, of)):
        try:
            fleet[ref.lane].commit([ref], gaps=no_gaps, now_ms=NOW)
        except PositionsRestarted:
            stopped.append(ref.lane)
    return stopped


@given(st.integers(0, 10**9), st.integers(1, 6))
@LAW
def test_current_and_history_go_on_with_the_restored_source(seed: int, commits: int) -> None:
    """The stream is split anywhere, and its committer dies anywhere; where it stops, the next epoch begins."""
    old = Source(seed, contract(), keys=12, renames=False)
    old.run(old.random.randint(5, 40))
    ended = old.by_partition()
    assume(all(ended.values()))  # a partition that held nothing is at no place where something begins again
    new = restored(old)
    new.run(old.random.randint(0, 30))
    came = {number: [*ended[number], *own] for number, own in new.by_partition().items()}
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        deliver(old, lake, came, {number: len(own) for number, own in ended.items()}, commits)
        left = {key: row for key, row in old.rows.items() if key not in new.versions}
        assert held(lake, "docs", "id, n, body, notes") == as_held({**left, **new.rows})
        assert held(lake, "docs_history", "id, n, body, notes", "_is_current") == as_held({**left, **new.rows})
        versions = [key for source in (old, new) for key, own in source.versions.items() for _ in own]
        assert held(lake, "docs_history", "id") == sorted(versions)
        assert offsets(lake, "docs_changes") == [(p, n) for p, own in sorted(came.items()) for n in range(len(own))]


def restored(old: Source) -> Source:
    """Give a source that was restored to some state: what it sends begins with a snapshot, in every partition."""
    new = Source(old.random.randrange(10**9), contract(), keys=12, renames=False)
    new._lsn, new._commit, new._next = 100, 100, dict(old._next)
    begun: set[int] = set()
    for key in sorted(old.versions):
        if new._partition(key) not in begun or old.random.random() < 0.6:
            begun.add(new._partition(key))
            new._open(key, {"id": key[0], "n": 1000 + key[0], "body": None, "notes": "restored"})
            new._send("r", new.rows[key], _position_major=None, _snapshot="true")
    return new


def as_held(rows: dict[Key, Row]) -> list[tuple[Any, ...]]:
    return sorted((*key, *(row[name] for name in ("n", *TOAST))) for key, row in rows.items())


def deliver(source: Source, lake: Lake, came: dict[int, list[Row]], ended: dict[int, int], commits: int) -> None:
    """Commit all that came, in about so many commits; ended: where the old source's records end."""
    random, at, turn = source.random, dict.fromkeys(came, 0), 0
    while any(at[number] < len(own) for number, own in came.items()):
        turn += 1
        ends = {
            number: at[number] + random.randint(0, 12) if turn < commits else len(own) for number, own in came.items()
        }
        stream = started(lake)
        if random.random() < 0.25:
            crash_at_a_table(source, stream)
        try:
            commit(stream, lake, [row for number, own in came.items() for row in own[at[number] : ends[number]]], NOW)
        except Crash:
            pass
        except PositionsRestarted:
            begin(lake, came, ended)
        at |= {number: last + 1 for (_, number), last in standing(lake).progress.items()}


def begin(lake: Lake, came: dict[int, list[Row]], ended: dict[int, int]) -> None:
    """Do as a start that asks for an epoch: what is left of the old source is committed first."""
    reached = {number: standing(lake).progress.get((TOPIC, number), -1) + 1 for number in came}
    assert {number: (one.offset, one.offset) for number, one in life_of(lake).pending.items()} == {
        number: (ended[number], reached[number]) for number in life_of(lake).pending
    }
    left = [row for number, own in came.items() for row in own[reached[number] : ended[number]]]
    commit(started(lake), lake, left, NOW)
    begin_epoch(lake, contract(), "test", TOPIC)


def test_records_are_told_apart_by_where_their_epoch_begins() -> None:
    life, partitions = Life(2, ({0: 3, 1: 5}, {0: 8, 1: 5})), {("t", 0): PartitionState(2, 0)}
    state = AnchorState("p", "s", partitions=partitions, lives={"t": life})
    places = [(0, 2), (0, 3), (0, 8), (1, 4), (1, 5), (2, 0)]
    records = pa.table({"topic": ["t"] * 6, "partition": [p for p, _ in places], "offset": [o for _, o in places]})
    found = {epochs["t"]: list(zip(*part.drop_columns("topic").to_pydict().values(), strict=True))
             for epochs, part in by_epoch(records, state)}  # fmt: skip
    assert found == {0: [(0, 2), (1, 4)], 1: [(0, 3)], 2: [(0, 8), (1, 5), (2, 0)]}


def test_tables_are_filled_epoch_by_epoch() -> None:
    lives = {"t": Life(2, ({0: 3, 1: 5}, {0: 8, 1: 5})), "u": Life(1)}
    steps = list(steps_of({("t", 0): (1, 9), ("t", 1): (0, 9), ("t", 2): (0, 4), ("u", 0): (0, 2)}, lives))
    assert [step.epochs for step in steps] == [{"t": 0, "u": 1}, {"t": 1, "u": 1}, {"t": 2, "u": 1}]
    assert [step.spans for step in steps] == [
        {("t", 0): (1, 2), ("t", 1): (0, 4), ("u", 0): (0, 2)},
        {("t", 0): (3, 7)},
        {("t", 0): (8, 9), ("t", 1): (5, 9), ("t", 2): (0, 4)},
    ]
    assert [dict(step.begins) for step in steps] == [{}, {"t": {0: 3, 1: 5}}, {"t": {0: 8, 1: 5}}]

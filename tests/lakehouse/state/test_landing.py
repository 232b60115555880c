"""Records that were read again land at their own position, once, whenever the process ends and whatever else commits:
then current, history and changes are what they would be if nothing had ever been refused."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from contracts.model import Action, Contract, Field, Rule, Storage, Truncate
from contracts.types import parse_type
from lakehouse.dealing import deal
from lakehouse.errors import NotBegun, SchemaRefused
from lakehouse.lake import Lake
from lakehouse.landing import Landed, Landing
from lakehouse.quarantined import Chosen, Quarantined
from lakehouse.relaning import change_lanes
from lakehouse.segments import Section
from lakehouse.standing import standing_of
from lakehouse.table import Contested
from tests.lakehouse.rows import NOW, no_gaps, section, tables, write
from tests.lakehouse.state.source import TOPIC, Row, Source, contract
from tests.lakehouse.state.test_state_laws import EXAMPLES, LAW, STORAGES, Crash, held, ranges_of, verify

SOON = NOW + 60_000
FEW = settings(LAW, max_examples=max(3, EXAMPLES // 3), phases=(Phase.explicit, Phase.reuse, Phase.generate))


def refuse(source: Source, share: float) -> None:
    """Let a rule refuse some of the changes that were not sent yet."""
    for event in source.events[source._given :]:
        if source.random.random() < share and event["_op"] != "t":
            event["_kind"] = "rejected"


def as_reject(source: Source, event: Row) -> Row:
    key = {name: event[name] for name in source.keys}
    told = {name: event[name] for name in ("_op", "_position_major", "_position_minor", "_event_time", "_topic",
                                           "_partition", "_offset")}  # fmt: skip
    why = {"_stage": "check", "_rules": ["rule"], "_reason": "refused", "_key": json.dumps(key)}
    return {**told, **why, "_ingested_at": NOW * 1000}


def deliver(source: Source, lake: Lake, commits: int) -> list[Row]:
    """Commit the source's events, and give those that were refused."""
    stream, refused = tables(lake, source.contract), list[Row]()
    for rows, prev in source.in_batches(commits):
        kept, apart = ([row for row in rows if (row["_kind"] is None) is wanted] for wanted in (True, False))
        rejects = [as_reject(source, row) for row in apart]
        made = section(kept, rejects, of=source.contract, ranges=ranges_of(rows, prev), withheld=apart)
        stream.commit(write(lake, made), gaps=no_gaps, now_ms=NOW)
        refused += apart
    return refused


def repaired(source: Source, rows: list[Row]) -> Section:
    return section([{**row, "_kind": None, "_kafka_time": NOW * 1000} for row in rows], of=source.contract)


def landing(lake: Lake, of: Contract, **options: Any) -> Landing:
    return Landing(lake, of, "test", {}, "0.0.1", **options)


def land(source: Source, lake: Lake, rows: list[Row], **options: Any) -> Landed:
    return landing(lake, source.contract, **options).land(repaired(source, rows), {}, SOON)


def crash_somewhere(source: Source, landing: Landing, error: type[BaseException] = Crash) -> None:
    """Let the process end before or after one of the commits of a repair."""
    commits: list[tuple[Any, str]] = [(landing._waiting, "resolve")]
    commits += [(t, "add" if t.kind.name == "changes" else "apply") for t in landing.tables({})[1:]]
    of, name = source.random.choice(commits)
    commit, after = getattr(of, name), source.random.random() < 0.5

    def crashing(*told: Any) -> None:
        setattr(of, name, commit)
        if after:
            commit(*told)
        raise error("somebody else committed")

    setattr(of, name, crashing)


def repair(source: Source, lake: Lake, refused: list[Row], *, crashes: bool = True) -> None:
    """Land refused changes in batches of any size and order; the process may end at any moment, and is run again."""
    left = [*refused]
    source.random.shuffle(left)
    while left:
        some = [left.pop() for _ in range(source.random.randint(1, len(left)))]
        one = landing(lake, source.contract)
        if crashes and source.random.random() < 0.7:
            crash_somewhere(source, one, source.random.choice([Crash, Contested]))
        try:
            one.land(repaired(source, some), {}, SOON)
        except Crash:
            land(source, lake, some)
        if source.random.random() < 0.3:
            again = land(source, lake, some)
            assert (again.added, again.resolved, again.held) == (0, 0, len(some))


def changes_once(source: Source, lake: Lake, table: str = "docs_changes") -> None:
    found = held(lake, table, "_partition, _offset")
    assert len(found) == len(set(found))
    assert {(number, offset) for number in source._next for offset in range(source._next[number])} == set(found)


def none_waits(lake: Lake) -> None:
    assert held(lake, "docs_quarantine", "count(*)", "_resolved_at IS NULL") == [(0,)]
    assert held(lake, "docs", "count(*)", "_stale") == [(0,)]


@given(st.integers(0, 10**9), st.integers(1, 4), st.booleans(), STORAGES)
@FEW
def test_repaired_changes_leave_the_tables_as_if_none_had_been_refused(
    seed: int, commits: int, composite: bool, storage: Storage
) -> None:
    source = Source(seed, contract(composite, storage=storage), renames=False)  # they come in any order
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        source.run(source.random.randint(5, 40))
        refuse(source, 0.3)
        waiting = deliver(source, lake, commits)
        before = standing_of(lake, source.contract, "test")
        first = [waiting.pop() for _ in range(len(waiting) // 2)]
        repair(source, lake, first)
        after = standing_of(lake, source.contract, "test")
        assert after.progress == before.progress
        assert after.anchor is not None and before.anchor is not None
        assert (after.anchor.partitions, after.anchor.watermark_ms) == (
            before.anchor.partitions,
            before.anchor.watermark_ms,
        )
        source.run(5)  # the job goes on
        waiting += deliver(source, lake, commits)
        repair(source, lake, waiting)
        source.given = held(lake, "docs_changes", "_partition, _offset")
        changes_once(source, lake)
        none_waits(lake)
        verify(source, lake)


OTHER = settings(FEW, max_examples=2)


@given(st.integers(0, 10**9))
@OTHER
def test_several_lanes_go_on_after_a_repair_beside_them(seed: int) -> None:
    of = contract(lanes=2)
    source = Source(seed, dataclasses.replace(of, state=dataclasses.replace(of.state, lanes=1)), renames=False)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        source.run(20)
        refuse(source, 0.3)
        waiting = deliver(source, lake, 2)
        change_lanes(lake, of, "test")
        source.contract = of
        repair(source, lake, waiting)
        source.run(10)
        for rows, prev in source.in_batches(3):
            refs = write(lake, *deal(section(rows, of=of, ranges=ranges_of(rows, prev)), of))
            for ref in refs:
                tables(lake, of, lane=ref.lane).commit([ref], gaps=no_gaps, now_ms=NOW)
        changes_once(source, lake)
        none_waits(lake)
        verify(source, lake)


def change(offset: int, key: int = 1, **values: Any) -> Row:
    made = {"id": key, "n": offset, "_op": "u", "_position_major": 10 + offset, "_position_minor": 10 + offset}
    beside = {"_topic": TOPIC, "_partition": 0, "_offset": offset, "_event_time": (1000 + offset) * 1000}
    return {**made, **beside, "_ingested_at": NOW * 1000, "_kafka_time": NOW * 1000, "_kind": None, **values}


def refused(*offsets: int, of: Contract | None = None, lake: Lake, upto: int = 4) -> Source:
    """Commit changes of one key, of which some are refused."""
    source = Source(0, of or contract())
    rows = [change(n, _kind="rejected" if n in offsets else None) for n in range(upto)]
    apart = [row for row in rows if row["_kind"]]
    kept = [row for row in rows if not row["_kind"]]
    rejects = [as_reject(source, row) for row in apart]
    keyed = apart if source.contract.keeps_state else ()
    made = section(kept, rejects, of=source.contract, withheld=keyed)
    tables(lake, source.contract).commit(write(lake, made), gaps=no_gaps, now_ms=NOW)
    return source


def test_a_row_stays_stale_until_nothing_of_its_key_waits(local: Lake) -> None:
    source = refused(1, 3, lake=local)
    assert held(local, "docs", "n, _stale") == [(2, True)]
    land(source, local, [change(1)])
    assert held(local, "docs", "n, _stale") == [(2, True)]
    land(source, local, [change(3)])
    assert held(local, "docs", "n, _stale") == [(3, False)]
    assert held(local, "docs_history", "n") == [(n,) for n in range(4)]


def test_a_change_that_a_newer_one_overtook_lands_below_it(local: Lake) -> None:
    source = refused(2, lake=local)
    assert land(source, local, [change(2)]).added == 1
    assert held(local, "docs", "n") == [(3,)]
    assert held(local, "docs_changes", "_offset") == [(n,) for n in range(4)]


def test_what_still_fails_stays_and_is_named(local: Lake) -> None:
    source = refused(1, 2, lake=local)
    made = section([change(1)], [as_reject(source, change(2))], of=source.contract)
    landed = landing(local, source.contract).land(made, {}, SOON)
    assert (landed.added, landed.resolved, landed.quarantined) == (1, 1, 0)
    assert landed.failing[0].select(["_offset", "_reason"]).to_pylist() == [{"_offset": 2, "_reason": "refused"}]
    assert held(local, "docs_quarantine", "_offset, _resolved_at IS NULL") == [(1, False), (2, True)]


def test_a_record_that_is_filtered_now_is_resolved_without_a_row(local: Lake) -> None:
    source = refused(3, lake=local)
    gone = {**change(3), "_kind": "filtered"}
    other = {name: gone[name] for name in ("_topic", "_partition", "_offset", "_kind")}
    landed = landing(local, source.contract).land(
        section([], [], [other], of=source.contract, withheld=[gone]), {}, SOON
    )
    assert (landed.added, landed.resolved, landed.counted) == (0, 1, 1)
    assert held(local, "docs", "n") == []


def test_a_record_that_no_table_holds_is_quarantined_once(local: Lake) -> None:
    source = refused(lake=local, upto=5)
    lone = section([], [as_reject(source, change(9))], of=source.contract)
    assert [landing(local, source.contract).land(lone, {}, SOON).quarantined for _ in range(2)] == [1, 0]
    assert held(local, "docs_quarantine", "_offset, _epoch") == [(9, 0)]


def test_a_change_older_than_the_memory_of_deletes_is_left_out(local: Lake) -> None:
    of = contract(delete_memory_ms=1000)
    source = refused(1, of=of, lake=local)
    late = landing(local, of).land(repaired(source, [change(1)]), {}, NOW + 1001)
    assert (late.added, late.resolved, late.too_old[0]["_offset"].to_pylist()) == (0, 0, [1])
    assert held(local, "docs_quarantine", "_resolved_at IS NULL") == [(True,)]
    old = {**change(1), "_kafka_time": 0}  # the pipeline read it later than Kafka got it
    assert landing(local, of).land(section([old], of=of), {}, NOW + 999).added == 1


def test_where_rules_drop_changes_the_mark_of_a_row_stays(local: Lake) -> None:
    source = refused(2, lake=local)
    drops = dataclasses.replace(source.contract, rules=(Rule("r", "required", Action.DROP, "n"),))
    silent = {"_unset": ["body", "notes"]}
    made = section([change(5, **silent)], of=drops, withheld=[change(4, _kind="dropped")])
    tables(local, drops).commit(write(local, made), gaps=no_gaps, now_ms=NOW)
    landing(local, drops).land(repaired(source, [change(2, **silent)]), {}, SOON)
    assert held(local, "docs", "n, _stale") == [(5, True)]
    assert held(local, "docs_quarantine", "count(*)", "_resolved_at IS NULL") == [(0,)]


def test_a_stream_that_keeps_changes_alone_keeps_its_progress_and_watermark(local: Lake) -> None:
    of = dataclasses.replace(contract(), tables=("quarantine", "changes"))
    source = refused(1, of=of, lake=local)
    before = standing_of(local, of, "test")
    told: list[tuple[int, int]] = []
    assert land(source, local, [change(1)], touched=lambda *times: told.append(times)).added == 1
    after = standing_of(local, of, "test")
    assert before.anchor is not None and after.anchor is not None
    assert (after.progress, after.anchor.partitions) == (before.progress, before.anchor.partitions)
    assert (after.anchor.watermark_ms, after.anchor.counts) == (before.anchor.watermark_ms, before.anchor.counts)
    assert told == [(1001, 1001)]
    tables(local, of).commit(write(local, section([change(4)], of=of)), gaps=no_gaps, now_ms=NOW)
    assert held(local, "docs_changes", "_offset, _late, _resent") == [
        (0, False, False), (1, False, False), (2, False, False), (3, False, False), (4, False, False),
    ]  # fmt: skip


def test_touched_windows_are_told_again_when_the_repair_was_killed_before_its_mark(local: Lake) -> None:
    source = refused(1, lake=local)
    one = landing(local, source.contract)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
        patch.setattr(one._waiting, "resolve", _crash)
        one.land(repaired(source, [change(1)]), {}, SOON)
    told: list[tuple[int, int]] = []
    landed = land(source, local, [change(1)], touched=lambda *times: told.append(times))
    assert (landed.added, landed.resolved, told) == (0, 1, [(1001, 1001)])


def _crash(*_: Any) -> None:
    raise Crash


def test_a_repaired_row_is_resent_when_its_position_came_before(local: Lake) -> None:
    source = refused(2, lake=local)
    again = {**change(2), "_position_major": 11, "_position_minor": 11}
    land(source, local, [again])
    assert held(local, "docs_changes", "_offset", "_resent") == [(2,)]


def test_a_repaired_truncate_takes_what_stands_below_it(local: Lake) -> None:
    of = contract(truncate=Truncate.APPLY)
    source = refused(2, of=of, lake=local)
    truncate = {**change(2), "id": None, "_op": "t", "_position_major": 99, "_position_minor": 99}
    land(source, local, [truncate])
    assert held(local, "docs", "n") == []
    anchor = standing_of(local, of, "test").anchor
    assert anchor is not None and len(anchor.floors[TOPIC]) == 1


def test_tables_that_are_not_what_the_contract_wants_are_left_alone(local: Lake) -> None:
    with pytest.raises(NotBegun, match="Start the pipeline"):
        landing(local, contract()).land(section([change(1)], of=contract()), {}, SOON)
    refused(1, lake=local)
    more = dataclasses.replace(contract(), fields=(*contract().fields, Field("more", "more", parse_type("text"))))
    with pytest.raises(SchemaRefused, match="lacks the columns more"):
        landing(local, more).land(section([change(1)], of=more), {}, SOON)


def test_what_waits_is_counted_shown_and_found(local: Lake) -> None:
    source = refused(1, 3, lake=local)
    held_back = Quarantined(local, source.contract)
    (count,) = held_back.counts(Chosen())
    assert (count["stage"], count["rule"], count["reason"], count["records"]) == ("check", "rule", "refused", 2)
    assert held_back.places(Chosen(place=(0, 3)))["_offset"].to_pylist() == [3]
    assert [row["_offset"] for row in held_back.records(Chosen(), 1)] == [1]
    chosen = [Chosen(rule="other"), Chosen(since_us=NOW * 1000 + 1), Chosen(until_us=NOW * 1000), Chosen("rule")]
    assert [len(held_back.places(one)) for one in chosen] == [0, 0, 0, 2]
    land(source, local, [change(1)])
    assert Quarantined(local, source.contract).places(Chosen())["_offset"].to_pylist() == [3]
    assert len(Quarantined(local, dataclasses.replace(source.contract, stream="other")).places(Chosen())) == 0


def test_a_record_of_an_earlier_life_of_its_topic_keeps_its_epoch(local: Lake) -> None:
    source = refused(2, lake=local)
    again = section([change(0, n=100), change(2, n=102)], of=source.contract)
    tables(local, source.contract, epochs={TOPIC: 1}).commit(write(local, again), gaps=no_gaps, now_ms=NOW)
    assert land(source, local, [change(2)]).added == 1  # in epoch 0
    assert held(local, "docs_changes", "_epoch, _offset, n") == [
        (0, 0, 0), (0, 1, 1), (0, 2, 2), (0, 3, 3), (1, 0, 100), (1, 2, 102),
    ]  # fmt: skip
    assert held(local, "docs", "n, _stale") == [(102, False)]
    assert held(local, "docs_history", "n", "_is_current") == [(102,)]
    assert standing_of(local, source.contract, "test").progress == {(TOPIC, 0): 2}

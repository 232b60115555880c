"""Records that were read again land at their own position, once, whenever the process ends and whatever else commits:
then current, history and changes are what they would be if nothing had ever been refused."""

from __future__ import annotations

import json
import tempfile
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from contracts.model import Contract, Storage
from lakehouse.lake import Lake
from lakehouse.landing import Landed, Landing
from lakehouse.segments import Section
from lakehouse.standing import standing_of
from lakehouse.table import Contested
from tests.lakehouse.rows import NOW, no_gaps, section, tables, write
from tests.lakehouse.state.source import Row, Source, contract
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

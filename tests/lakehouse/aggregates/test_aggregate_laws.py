"""The law of aggregates: each row counts once in each of its windows, or stands in <stream>_late for it, whatever the
order of rows and commits, and wherever the writer dies."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.model import Aggregate, Contract, EventTime, Measure, StateTables, Storage, Window, WindowType
from lakehouse.commit import StreamTables
from lakehouse.errors import PartialTable
from lakehouse.identity import TopicIdentity
from lakehouse.lake import Lake
from lakehouse.landing import Landing
from lakehouse.segments import Section
from tests.lakehouse.aggregates.truth import expected, held, rows_of, windows
from tests.lakehouse.rows import NOW, START, TOPIC, contract, no_gaps, reject, row, section, tables, write

MEASURES = (
    Measure("orders", "count"),
    Measure("priced", "count", "amount"),
    Measure("revenue", "sum", "amount"),
    Measure("smallest", "min", "amount"),
    Measure("biggest", "max", "amount"),
    Measure("mean", "avg", "amount"),
    Measure("notes", "approx_distinct", "note"),
)
AGGREGATES = (
    Aggregate("per_second", Window(WindowType.TUMBLE, 1_000, 1_000), MEASURES, ("note",), "op IN ('c', 'r')"),
    Aggregate("sliding", Window(WindowType.HOP, 3_000, 1_000), MEASURES[:3], ("note",)),
    Aggregate("so_far", Window(WindowType.CUMULATE, 4_000, 2_000), MEASURES, (), "amount > 1 OR amount IS NULL"),
    Aggregate("sessions", Window(WindowType.SESSION, 700, 700), MEASURES, ("note",)),
    Aggregate("visits", Window(WindowType.SESSION, 300, 300), MEASURES[:1]),
)
DISORDER, LATENESS = 1_500, 2_000  # ms
PARTITIONS = 3


def unread(_topic: str, _partition: int, after: int, before: int) -> bool:
    """Say whether records lie between: Kafka has lost none."""
    return before - after > 1


class Killed(Exception):
    """The writer died."""


def of(**changes: Any) -> Contract:
    """Give the contract of the tests."""
    time = EventTime(out_of_orderness_ms=DISORDER, idle_timeout_ms=10**9, allowed_lateness_ms=LATENESS)
    given = {"aggregates": AGGREGATES, "event_time": time, "tables": ("quarantine", "changes"), **changes}
    return contract(**given)


def records(source: random.Random, count: int, disorder_ms: int, *, strange: bool) -> list[dict[str, Any]]:
    """Give rows of some partitions whose times go back by at most disorder_ms behind the partition's newest."""
    made = []
    for partition in range(PARTITIONS):
        newest = START + source.randint(0, 500)
        behind = source.choice([0, 0, 3_000])
        for offset in range(count):
            newest += source.randint(0, 400)
            back = source.randint(0, disorder_ms)
            values = {
                "event_ms": newest - back - behind,
                "_op": source.choice("ccrud"),
                "amount": source.choice([None, *(Decimal(n) / 100 for n in range(0, 1_000, 37))]),
                "note": source.choice(["a", "b", None]),
                "_position_major": offset + 1,
                "_position_minor": offset + 1,
            }
            if strange and source.random() < 0.1:
                values["event_ms"] = source.choice([None, newest - source.randint(0, 20_000), NOW + 10**9])
            if strange and source.random() < 0.1:
                values |= {"_position_major": max(1, offset - 2), "_position_minor": max(1, offset - 2)}  # sent again
            if strange and source.random() < 0.1:
                values |= {"note": None, "_unset": ["note"]}
            made.append(row(offset, partition, **values))
    return made


def cut(source: random.Random, rows: list[dict[str, Any]], count: int) -> list[Section]:
    """Cut rows into sections: any partitions, each in offset order."""
    at, made = dict.fromkeys(range(PARTITIONS), 0), []
    while any(offset < count for offset in at.values()):
        part = []
        prev = {(TOPIC, p): offset - 1 for p, offset in at.items() if offset}
        for partition in range(PARTITIONS):
            high = min(count, at[partition] + source.choice([0, 1, 3, 9]))
            part += [r for r in rows if r["_partition"] == partition and at[partition] <= r["_offset"] < high]
            at[partition] = high
        if part:
            made.append(section(part, prev=prev))
    return made


def dying(stream: StreamTables, source: random.Random, share: float) -> StreamTables:
    """Let the writer die now and then, before or after the commit of any of its tables."""

    def wrapped(apply: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any) -> None:
            fate = source.random()
            if fate < share / 2:
                raise Killed
            apply(*args)
            if fate > 1 - share / 2:
                raise Killed

        return run

    stream.prepare()
    for table in stream.tables:
        table.apply = wrapped(table.apply)  # type: ignore[method-assign]
    return stream


def run(lake: Lake, source: random.Random, sections: list[Section], share: float = 0.25, **changes: Any) -> None:
    """Commit all sections, some of them twice, in any calls, dying on the way."""
    refs = write(lake, *sections)
    at, of_contract = 0, of(**changes)
    ends = {(r.topic, r.partition): r.last + 1 for ref in refs for r in ref.ranges}
    stream = dying(tables(lake, of_contract), source, share)
    while at < len(refs):
        step = source.randint(1, 4)
        call = refs[max(0, at - source.randint(0, 2)) : at + step]
        try:
            stream.commit(call, gaps=unread, identity=TopicIdentity(ends=ends, taken_at=0.0), now_ms=NOW + at)
            at += step
        except Killed:
            stream = dying(tables(lake, of_contract), source, share)


def check(lake: Lake, aggregates: tuple[Aggregate, ...] = AGGREGATES) -> list[dict[str, Any]]:
    """Compare all aggregates with the truth; gives what was late."""
    changes, late = rows_of(lake, "orders_changes"), rows_of(lake, "orders_late")
    stream = tables(lake, of(aggregates=aggregates))
    stream.prepare()
    state = stream.anchor.state()
    assert state is not None
    for aggregate in aggregates:
        missed = [one for one in late if one["_aggregate"] == aggregate.name]
        counted = [r for r in changes if not r["_resent"] and passes(aggregate, r)]
        rows = rows_of(lake, f"orders_{aggregate.name}")
        assert held(aggregate, rows) == expected(aggregate, counted, missed), aggregate.name
        for one in rows:
            passed = state.watermark_ms is not None and one["window_end"] <= state.watermark_ms * 1_000
            assert one["_complete"] == passed, (aggregate.name, one)
        places = Counter((m["_topic"], m["_partition"], m["_offset"], m["_window_end"]) for m in missed)
        assert all(number == 1 for number in places.values()), "a row misses a window once"
    return late


def passes(aggregate: Aggregate, one: dict[str, Any]) -> bool:
    match aggregate.name:
        case "per_second":
            return one["_op"] in ("c", "r")
        case "so_far":
            return one["amount"] is None or one["amount"] > 1
    return True


@given(st.integers(0, 10**6))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_order_and_wherever_the_writer_dies_each_row_counts_once(seed: int) -> None:
    source = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        some = tuple(source.sample(AGGREGATES, 2))
        rows = records(source, 12, 9_000, strange=True)
        run(lake, source, cut(source, rows, 12), aggregates=some)
        late = check(lake, some)
        reasons = {one["_why"].partition(":")[0] for one in late}
        assert reasons <= {"late", "no event time", "not sent"}


@given(st.integers(0, 10**6))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_is_late_within_the_bounds(seed: int) -> None:
    source = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        some = tuple(source.sample(AGGREGATES, 2))
        rows = records(source, 12, DISORDER + LATENESS, strange=False)
        run(lake, source, cut(source, rows, 12), aggregates=some)
        assert check(lake, some) == []


def test_a_row_beyond_the_allowed_lateness_stands_in_late_with_the_window_it_missed(local: Lake) -> None:
    aggregate = AGGREGATES[0]
    stream = tables(local, of(aggregates=(aggregate,)))
    on_time, late = row(0, event_ms=START + 20_000, note="a"), row(1, event_ms=START, note="a")
    just = row(2, event_ms=START + 20_000 - DISORDER - LATENESS - 100, note="b")
    stream.commit(write(local, section([on_time])), gaps=no_gaps, now_ms=NOW)
    report = stream.commit(write(local, section([late, just])), gaps=no_gaps, now_ms=NOW)
    [missed] = rows_of(local, "orders_late")
    start, end = next(windows(aggregate.window, START * 1_000))
    told = ("_offset", "_aggregate", "_why", "_window_start", "_window_end", "_watermark")
    assert [missed[name] for name in told] == [
        1, "per_second", "late", start, end, (START + 20_000 - DISORDER) * 1_000
    ]  # fmt: skip
    assert report.counts["late"] == 2 and report.counts["missed"] == 1
    found = {r["note"]: (r["orders"], r["_complete"]) for r in rows_of(local, "orders_per_second")}
    assert found == {"a": (1, False), "b": (1, True)}, "the row within the allowed lateness counts"


@pytest.mark.parametrize("anchor", ["aggregate", "changes", "current"])
def test_any_table_may_be_the_anchor(local: Lake, anchor: str) -> None:
    kept = {"aggregate": ("quarantine",), "changes": ("quarantine", "changes"), "current": ("quarantine", "current")}
    source = random.Random(7)
    rows = records(source, 6, 1_000, strange=True)
    run(local, source, cut(source, rows, 6), tables=kept[anchor])
    late = rows_of(local, "orders_late")
    for aggregate in AGGREGATES:
        found = held(aggregate, rows_of(local, f"orders_{aggregate.name}"))
        if anchor == "changes":
            missed = [one for one in late if one["_aggregate"] == aggregate.name]
            counted = [r for r in rows_of(local, "orders_changes") if not r["_resent"] and passes(aggregate, r)]
            assert found == expected(aggregate, counted, missed)
        else:
            assert sum(measures[0] for measures in found.values()) > 0


@given(st.integers(0, 10**6))
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_aggregates_that_join_a_running_stream_are_counted_from_its_changes(seed: int) -> None:
    source = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        some = tuple(source.sample(AGGREGATES, 3))
        sections = cut(source, records(source, 12, 9_000, strange=True), 12)
        middle = len(sections) // 2
        run(lake, source, sections[:middle], aggregates=some[: source.choice([0, 1])])
        run(lake, source, sections[middle:], aggregates=some)
        check(lake, some)


def test_without_changes_an_aggregate_cannot_join(local: Lake) -> None:
    source = random.Random(1)
    kept = ("quarantine", "current")
    sections = cut(source, records(source, 6, 0, strange=False), 6)
    run(local, source, sections, aggregates=(), tables=kept)
    with pytest.raises(PartialTable, match="no changes to count it from"):
        tables(local, of(aggregates=AGGREGATES[:1], tables=kept)).prepare()


@pytest.mark.parametrize("storage", list(Storage), ids=str)
def test_maintenance_and_restarts_change_no_aggregate(
    lake: Lake, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakehouse.merge.compaction.SMALL_COUNT", 2)
    monkeypatch.setattr("lakehouse.upkeep.EVERY", 0.0)
    monkeypatch.setattr("lakehouse.merge.kept_index.ENTRIES", 0)
    source, some = random.Random(5), (AGGREGATES[0], AGGREGATES[3])
    kept = of(aggregates=some, state=StateTables(storage=storage))
    stream, files = tables(lake, kept), 0
    for number, one in enumerate(cut(source, records(source, 10, 3_000, strange=True), 10)):
        stream.commit(write(lake, one), gaps=no_gaps, now_ms=NOW)
        files += stream.maintain(5.0).files
        if number % 3 == 2:
            stream = tables(lake, kept)
    check(lake, some)
    assert files > 0, "files were merged"


@given(st.integers(0, 10**6))
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_rows_that_are_repaired_long_after_count_in_the_windows_they_belong_to(seed: int) -> None:
    source = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        some = tuple(source.sample(AGGREGATES, 3))
        rows = records(source, 10, 9_000, strange=True)
        broken = {(r["_partition"], r["_offset"]) for r in source.sample(rows, 6)}
        kept = [r for r in rows if (r["_partition"], r["_offset"]) not in broken]
        refused = [reject(offset, partition) for partition, offset in broken]
        stream = tables(lake, of(aggregates=some))
        stream.commit(write(lake, section(kept, refused)), gaps=no_gaps, now_ms=NOW)
        check(lake, some)
        repaired = [r for r in rows if (r["_partition"], r["_offset"]) in broken]
        for part in (repaired[:3], repaired[3:], repaired):  # the last ones are there already
            Landing(lake, of(aggregates=some), "test", {}, "0.0.1").land(section(part), {}, NOW + 10**9)
            check(lake, some)
        assert len(rows_of(lake, "orders_changes")) == len(rows)
        more = [row(offset, partition, event_ms=NOW) for partition in range(PARTITIONS) for offset in (10, 11)]
        stream.commit(write(lake, section(more)), gaps=no_gaps, now_ms=NOW)
        check(lake, some)


def thirds(rows: list[dict[str, Any]], count: int) -> list[list[Section]]:
    """Give the sections of three stretches of all partitions."""
    third = count // 3
    return [
        [section([r for r in rows if low <= r["_offset"] < low + third], prev=_before(low))]
        for low in range(0, count, third)
    ]


def _before(low: int) -> dict[tuple[str, int], int]:
    return {(TOPIC, partition): low - 1 for partition in range(PARTITIONS)} if low else {}


def test_an_aggregate_that_was_not_kept_for_a_while_is_counted_again(local: Lake) -> None:
    source, some = random.Random(9), AGGREGATES[:2]
    first, second, third = thirds(records(source, 12, 9_000, strange=True), 12)
    run(local, source, first, aggregates=some)
    run(local, source, second, aggregates=some[:1])
    run(local, source, third, aggregates=some)
    check(local, some)


def test_changes_that_were_not_kept_for_a_while_are_refused(local: Lake) -> None:
    source = random.Random(9)
    first, second, _ = thirds(records(source, 9, 0, strange=False), 9)
    both = ("quarantine", "changes", "current")
    run(local, source, first, aggregates=(), tables=both)
    run(local, source, second, aggregates=(), tables=("quarantine", "current"))
    with pytest.raises(PartialTable, match="not kept for a while"):
        tables(local, of(aggregates=(), tables=both)).prepare()


@pytest.mark.parametrize("filled", [True, False], ids=["lags", "never filled"])
def test_a_repaired_row_counts_in_an_aggregate_that_had_nothing_to_count_for_a_while(local: Lake, filled: bool) -> None:
    only = of(aggregates=AGGREGATES[:1])  # counts creates
    stream = tables(local, only)
    first = section([row(0, _op="c" if filled else "d")])
    stream.commit(write(local, first), gaps=no_gaps, now_ms=NOW)
    after = section([row(1, _op="d")], [reject(2)], prev={(TOPIC, 0): 0})
    stream.commit(write(local, after), gaps=no_gaps, now_ms=NOW)
    Landing(local, only, "test", {}, "0.0.1").land(section([row(2, _op="c")]), {}, NOW)
    check(local, AGGREGATES[:1])
    assert sum(one["orders"] for one in rows_of(local, "orders_per_second")) == 1 + filled
    stream.commit(write(local, section([row(3)], prev={(TOPIC, 0): 2})), gaps=no_gaps, now_ms=NOW)
    check(local, AGGREGATES[:1])

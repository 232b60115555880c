"""Aggregates over current are what a query over current says, whatever changes it, and wherever the writer dies."""

from __future__ import annotations

import dataclasses
import tempfile
from typing import Any

import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from contracts.model import Aggregate, Contract, EventTime, Measure, Over, Storage, Truncate, Window, WindowType
from lakehouse.aggregates.following import FollowingTable
from lakehouse.commit import StreamTables
from lakehouse.errors import SchemaRefused
from lakehouse.lake import Lake
from tests.lakehouse.rows import NOW, no_gaps, section, tables, write
from tests.lakehouse.state.source import Source, contract
from tests.lakehouse.state.test_state_laws import LAW, STORAGES, Crash, deliver, held, verify

MEASURES = (Measure("rows", "count"), Measure("total", "sum", "n"), Measure("noted", "count", "notes"),
            Measure("mean", "avg", "n"))  # fmt: skip
BY_NOTE = Aggregate("by_note", Window(WindowType.TUMBLE, 500, 500), MEASURES, ("notes",), over=Over.CURRENT)
SLIDING = Aggregate("sliding", Window(WindowType.HOP, 300, 100), MEASURES[:2], (), "n > 10", Over.CURRENT)


def of(**state: Any) -> Contract:
    made = contract(**state)
    time = EventTime(out_of_orderness_ms=50, idle_timeout_ms=10**9)
    return dataclasses.replace(made, aggregates=(BY_NOTE, SLIDING), event_time=time)


def check(source: Source, lake: Lake) -> None:
    verify(source, lake)
    live = "WHERE _deleted IS NOT TRUE" if source.contract.state.soft_deletes else ""
    start = "epoch_us(_event_time) // 500000 * 500000"
    wanted = f"{start} AS start, notes, count(*), sum(n), count(notes), avg(n)"
    said = held(lake, f"(SELECT {wanted} FROM docs {live} GROUP BY start, notes)", "*")
    got = held(lake, "docs_by_note", 'epoch_us(window_start), notes, "rows", CAST(total AS BIGINT), noted, mean')
    assert got == said
    hops = (
        f"SELECT s.start * 100000 AS start, count(*) AS n, sum(n) AS t FROM (SELECT n, unnest(range("
        f"epoch_us(_event_time) // 100000 - 2, epoch_us(_event_time) // 100000 + 1)) AS start FROM docs "
        f"{live or 'WHERE true'} AND n > 10) s GROUP BY s.start"
    )
    assert held(lake, "docs_sliding", 'epoch_us(window_start), "rows", CAST(total AS BIGINT)') == held(
        lake, f"({hops})", "*"
    )


def crash_at_a_follower(source: Source, stream: StreamTables) -> None:
    """Let the process end before or after the commit of one of the tables that follow current, or not."""
    if source.random.random() < 0.6:
        return
    stream.prepare()
    table, after = source.random.choice(stream.followers), source.random.random() < 0.5
    put = table.put

    def crashing(*args: Any, **more: Any) -> None:
        if after:
            put(*args, **more)
        raise Crash

    table.put = crashing  # type: ignore[method-assign]


@given(st.integers(0, 10**9), st.integers(1, 6), st.booleans(), st.booleans(), STORAGES)
@LAW
def test_the_aggregates_are_what_a_query_over_current_says(
    seed: int, commits: int, soft: bool, truncates: bool, storage: Storage
) -> None:
    whole = of(soft_deletes=soft, storage=storage, truncate=Truncate.APPLY)
    source = Source(seed, whole, truncates=truncates, renames=not truncates)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        for _ in range(2):
            source.run(source.random.randint(1, 25))
            deliver(source, lake, commits=commits, between=lambda stream: crash_at_a_follower(source, stream))
            tables(lake, whole).commit([], gaps=no_gaps, now_ms=NOW)  # what a crash left is seen to by the next writer
            check(source, lake)


def test_it_follows_by_what_changed_and_counts_all_only_when_it_must(
    local: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    everything = FollowingTable._all_parts

    def noted(table: FollowingTable, current: Any) -> Any:
        counted.append(table.name)
        return everything(table, current)

    monkeypatch.setattr(FollowingTable, "_all_parts", noted)
    source = Source(3, of())
    source.run(20)
    stream = deliver(source, local, commits=1)
    check(source, local)
    counted.clear()
    for _ in range(3):
        source.run(3)
        for rows, _ in source.in_batches(1):
            stream.commit(write(local, section(rows, of=source.contract)), gaps=no_gaps, now_ms=NOW)
        stream.maintain()
    tables(local, source.contract).commit([], gaps=no_gaps, now_ms=NOW)  # started again: the log says what changed
    check(source, local)
    assert counted == []
    docs = DeltaTable(local.table_uri("docs"))
    docs.delete("n >= 0")
    stream.commit([], gaps=no_gaps, now_ms=NOW)
    assert counted == ["docs_by_note", "docs_sliding"]
    assert held(local, "docs_by_note", "*") == []


def test_an_aggregate_that_joins_a_stream_counts_what_is_there(local: Lake) -> None:
    source = Source(5, contract())
    source.run(30)
    deliver(source, local, commits=2)
    source.contract = of()
    tables(local, source.contract).commit([], gaps=no_gaps, now_ms=NOW)
    check(source, local)


def test_an_aggregate_that_says_something_else_is_refused(local: Lake) -> None:
    source = Source(5, of())
    source.run(5)
    deliver(source, local, commits=1)
    other = dataclasses.replace(SLIDING, where="n > 11")
    with pytest.raises(SchemaRefused, match="another name"):
        tables(local, dataclasses.replace(of(), aggregates=(BY_NOTE, other))).prepare()

"""The law of the state tables: current is the source's table and history its changelog, whatever the order in which
partitions, batches and commits bring the changes, what is sent again, and when the job starts again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.model import Contract, Storage, Truncate
from lakehouse.commit import StreamTables
from lakehouse.lake import Lake
from lakehouse.segments import Range
from tests.lakehouse.rows import NOW, no_gaps, section, tables, write
from tests.lakehouse.state.source import TOPIC, Source, contract
from tests.reading import reader

EXAMPLES = int(os.environ.get("TIDEGATE_LAW_EXAMPLES", "10"))  # hundreds find what ten do not: run them after a change
LAW = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
STORAGES = st.sampled_from(Storage)


class Crash(BaseException):
    """The process ends."""


def crash_at_a_table(source: Source, stream: StreamTables) -> None:
    """Let the process end before or after the commit of one of the stream's tables."""
    stream.prepare()
    table, after = source.random.choice(stream.tables), source.random.random() < 0.5
    apply = table.apply

    def crashing(*of: Any) -> None:
        if after:
            apply(*of)
        raise Crash

    table.apply = crashing  # type: ignore[method-assign]


def nothing(_: StreamTables) -> None:
    """Do nothing between commits."""


def deliver(
    source: Source, lake: Lake, *, commits: int, between: Callable[[StreamTables], None] = nothing
) -> StreamTables:
    """Commit the source's events: partitions interleaved at random, in so many commits, with restarts and replays."""
    of = source.contract
    stream = tables(lake, of)
    done: list[Any] = []
    for rows, prev in source.in_batches(commits):
        kept = [row for row in rows if row["_kind"] is None]
        apart = [row for row in rows if row["_kind"] is not None]
        ranges = ranges_of(rows, prev)
        refs = write(lake, section(kept, of=of, ranges=ranges, withheld=apart))
        if source.random.random() < 0.25:
            crash_at_a_table(source, stream)
        try:
            stream.commit([*source.random.choices(done, k=min(len(done), 1)), *refs], gaps=no_gaps, now_ms=NOW)
        except Crash:
            stream = tables(lake, of)
            stream.commit(refs, gaps=no_gaps, now_ms=NOW)
        done += refs
        between(stream)
        if source.random.random() < 0.3:
            stream = tables(lake, of)
    return stream


def ranges_of(rows: list[dict[str, Any]], prev: dict[tuple[str, int], int]) -> list[Range]:
    found: dict[int, list[int]] = {}
    for row in rows:
        found.setdefault(row["_partition"], []).append(row["_offset"])
    return [
        Range(TOPIC, number, prev.get((TOPIC, number)), min(offsets), max(offsets), len(offsets))
        for number, offsets in sorted(found.items())
    ]


def held(lake: Lake, table: str, columns: str, where: str = "true") -> list[tuple[Any, ...]]:
    """Read a table by DuckDB."""
    return reader(lake).execute(f"SELECT {columns} FROM {table} WHERE {where} ORDER BY ALL").fetchall()


def keys(of: Contract) -> str:
    return ", ".join(field.name for field in of.key)


def expected_current(source: Source) -> list[tuple[Any, ...]]:
    rows = [(*key, *(row[name] for name in source.columns)) for key, row in source.rows.items()]
    return ordered(rows)


def expected_history(source: Source) -> list[tuple[Any, ...]]:
    tracked, found = tracked_of(source), []
    for key, versions in source.versions.items():
        kept: list[tuple[int, int | None, tuple[Any, ...]]] = []
        for begin, end, row in versions:
            said = tuple(row[name] for name in tracked)
            again = source.contract.state.tracked and kept and kept[-1][1:] == (begin, said)
            kept.append((kept.pop()[0] if again else begin, end, said))
        found += [(*key, begin, end, end is None, *said) for begin, end, said in kept]
    return ordered(found)


def tracked_of(source: Source) -> tuple[str, ...]:
    return source.contract.state.tracked or tuple(source.columns)


def ordered(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(rows, key=lambda row: tuple((value is None, value) for value in row))


def verify(source: Source, lake: Lake) -> None:
    own = keys(source.contract)
    deleted = "_deleted IS NOT TRUE" if source.contract.state.soft_deletes else "true"
    waits = held(lake, "docs", f"{own}, list_sort(_pending)", f"_pending IS NOT NULL AND {deleted}")
    assert waits == source.pending()
    assert ordered(held(lake, "docs", f"{own}, {', '.join(source.columns)}", deleted)) == expected_current(source)
    assert held(lake, "docs", own, f"_stale AND {deleted}") == source.stale()
    times = "epoch_ms(_valid_from), epoch_ms(_valid_to), _is_current"
    assert ordered(held(lake, "docs_history", f"{own}, {times}, {', '.join(tracked_of(source))}")) == expected_history(
        source
    )
    by_deltalake = DeltaTable(lake.table_uri("docs"), storage_options=dict(lake.storage_options))
    read = pa.table(QueryBuilder().register("docs", by_deltalake).execute("SELECT count(*) AS n FROM docs").read_all())
    assert read["n"].to_pylist() == [held(lake, "docs", "count(*)")[0][0]]
    if source.contract.state.storage is Storage.COPY_ON_WRITE:
        assert len(by_deltalake.to_pyarrow_table()) == read["n"][0].as_py()  # knows no vectors


@given(st.integers(0, 10**9), st.integers(1, 8), st.booleans(), st.booleans(), STORAGES)
@LAW
def test_current_is_the_source_and_history_its_changelog(
    seed: int, commits: int, composite: bool, soft: bool, storage: Storage
) -> None:
    source = Source(seed, contract(composite, soft_deletes=soft, storage=storage))
    source.run(source.random.randint(1, 40))
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        deliver(source, lake, commits=commits)
        verify(source, lake)


@pytest.mark.parametrize(("seed", "storage"), enumerate((*Storage, Storage.MERGE_ON_READ)))
def test_many_keys_in_many_commits(seed: int, storage: Storage, lake: Lake) -> None:
    source = Source(seed, contract(storage=storage), keys=200, partitions=7)
    source.run(1500)
    deliver(source, lake, commits=25)
    verify(source, lake)


@given(st.integers(0, 10**9), st.integers(1, 8), st.booleans(), STORAGES)
@LAW
def test_truncates_empty_the_tables_however_late_older_rows_come(
    seed: int, commits: int, soft: bool, storage: Storage
) -> None:
    of = contract(truncate=Truncate.APPLY, soft_deletes=soft, storage=storage)
    source = Source(seed, of, truncates=True, renames=False)
    source.run(source.random.randint(1, 60))
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        deliver(source, lake, commits=commits)
        verify(source, lake)


@given(st.integers(0, 10**9), st.integers(1, 8), st.booleans(), STORAGES)
@LAW
def test_what_waits_in_quarantine_marks_its_row_and_what_leaves_the_filter_is_gone(
    seed: int, commits: int, soft: bool, storage: Storage
) -> None:
    source = Source(seed, contract(soft_deletes=soft, storage=storage), withholds=True)
    source.run(source.random.randint(1, 60))
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        deliver(source, lake, commits=commits)
        verify(source, lake)


@given(
    st.integers(0, 10**9), st.integers(1, 8), st.booleans(), st.sampled_from([None, ("n",), ("n", "body")]), STORAGES
)
@LAW
def test_rows_read_again_make_no_versions_and_only_tracked_columns_do(
    seed: int, commits: int, composite: bool, tracked: tuple[str, ...] | None, storage: Storage
) -> None:
    source = Source(seed, contract(composite, tracked=tracked, storage=storage), rereads=True)
    source.run(source.random.randint(1, 50))
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        deliver(source, lake, commits=commits)
        verify(source, lake)


@given(st.integers(0, 10**9), st.integers(1, 8), st.booleans(), STORAGES)
@LAW
def test_changes_of_one_key_may_come_in_any_order(seed: int, commits: int, soft: bool, storage: Storage) -> None:
    source = Source(seed, contract(soft_deletes=soft, storage=storage), scattered=True, renames=False)
    source.run(source.random.randint(1, 50))
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        deliver(source, lake, commits=commits)
        verify(source, lake)

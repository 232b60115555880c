"""Columns that a source gains while its stream runs join the tables, whoever meets them first and whatever comes late:
rows from before have null in them, and no value is lost or made up."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from contracts.model import Contract, Storage, Truncate
from jobs.metrics import NoMetrics
from jobs.refinery import Refinery
from jobs.registry import Registries
from lakehouse.commit import StreamTables
from lakehouse.lake import Lake
from lakehouse.lanes import Lane
from lakehouse.merge.merge_table import MergeTable
from lakehouse.parking import Parking
from lakehouse.segments import SectionRef
from lakehouse.table import StreamTable
from lakehouse.tables import KeptTable
from tests.lakehouse.rows import NOW, no_gaps, offsets, tables, values
from tests.lakehouse.state.growing import NUMBER, TEXT, Growing, growing, messages
from tests.lakehouse.state.source import Row
from tests.lakehouse.state.test_lanes import COUNTS, Fleet
from tests.lakehouse.state.test_snapshots import change
from tests.lakehouse.state.test_state_laws import LAW, STORAGES, Crash, held, verify
from udfs.keys import KeyRing

BEFORE: Row = {"_columns": ("n",), "_unset": None}  # of events from before the columns came
AFTER: Row = {"_columns": ("n", TEXT, NUMBER), "_unset": None}


def refinery(lake: Lake, of: Contract) -> Refinery:
    return Refinery([of], lake, Parking(lake, "test"), Registries([of], NoMetrics()), KeyRing({}), NoMetrics())


class Workers(Fleet):
    """Committers whose sections are refined from messages: each partition by a worker, now and then by a new one."""

    def __init__(self, source: Growing, lake: Lake, count: int) -> None:
        super().__init__(source, lake, count)
        self.workers: dict[int, Refinery] = {}
        self.said: list[Row] = []

    def take(self, rows: list[Row], prev: dict[tuple[str, int], int]) -> None:  # noqa: ARG002 (workers know it)
        """Refine a batch; some lanes commit between two workers, so that what one said stands alone in a commit."""
        for _ in self.refined(rows):
            if self.source.random.random() < 0.5:
                self.some()

    def refined(self, rows: list[Row]) -> Iterator[int]:
        """Refine a batch, one partition after the other; gives each that is done."""
        self.said += rows
        by_partition: dict[int, list[Row]] = {}
        for row in rows:
            by_partition.setdefault(row["_partition"], []).append(row)
        for number, own in by_partition.items():
            if number not in self.workers or self.source.random.random() < 0.1:
                self.workers[number] = refinery(self.lake, self.of)
            for ref in self.workers[number].take(messages(own)):
                self.waiting[ref.lane].append(ref)
            yield number

    def run(self, commits: int) -> None:
        """Commit the source's events."""
        for rows, prev in self.source.in_batches(commits):
            self.take(rows, prev)
            self.some()
        self.level()


def verify_all(workers: Workers) -> None:
    """Compare all tables with the truth."""
    source, lake = workers.source, workers.lake
    verify(source, lake)
    assert offsets(lake, "docs_quarantine") == []
    said = [(row["_partition"], row["_offset"], *(row.get(name) for name in source.columns)) for row in workers.said]
    assert values(lake, f"_partition, _offset, {', '.join(source.columns)}", "docs_changes") == sorted(said)


@given(
    st.integers(0, 10**9), st.integers(1, 6), COUNTS, st.booleans(), st.booleans(), st.booleans(),
    st.sampled_from([None, ("n",)]), STORAGES,
)  # fmt: skip
@LAW
def test_tables_gain_the_columns_of_the_source_and_stay_the_truth(  # noqa: PLR0917 (all that streams differ in)
    seed: int, commits: int, count: int, composite: bool, soft: bool, truncates: bool, tracked: tuple[str, ...] | None,
    storage: Storage,
) -> None:  # fmt: skip
    kept = {"soft_deletes": soft, "tracked": tracked, "storage": storage}
    of = growing(composite=composite, truncate=Truncate.APPLY, **kept)
    source = Growing(seed, of, truncates=truncates, renames=not truncates)
    with tempfile.TemporaryDirectory() as folder:
        workers = Workers(source, Lake.open(folder), count)
        source.run(source.random.randint(1, 10))
        workers.run(2)
        source.run(source.random.randint(1, 15))
        for name in source.random.sample([TEXT, NUMBER], 2):
            source.gain(name)
            source.run(source.random.randint(1, 15))
        workers.run(commits)
        verify_all(workers)


def grown_one_by_one(lake: Lake) -> tuple[StreamTables, list[SectionRef], list[SectionRef]]:
    """Give tables with rows from before columns came, sections with the columns, and one that lacks them."""
    of, old = growing(), refinery(lake, growing())
    stream = tables(lake, of)
    first = [change(0, 1, 10, **BEFORE), change(1, 2, 11, **BEFORE), change(0, 4, 12, 1, **BEFORE)]
    stream.commit(old.take(messages(first)), gaps=no_gaps, now_ms=NOW)
    late = old.take(messages([change(1, 4, 13, 1, _op="d", **BEFORE), change(2, 5, 14, 1, **BEFORE)]))
    grown = [
        change(2, 1, 20, extra="x", score=5, _op="u", **AFTER),
        change(3, 3, 21, score=-1, **AFTER),
        change(4, 1, 30, n=2, score=5, _op="u", **{**AFTER, "_unset": ["extra"]}),
        change(5, 3, 31, score="many", _op="u", **AFTER),
    ]
    return stream, refinery(lake, of).take(messages(grown)), late


def verify_grown(lake: Lake) -> None:
    """Compare the tables of grown_one_by_one, once all is committed, with the truth."""
    current = held(lake, "docs", "id, n, extra, score, _stale, _pending")
    assert current == [
        (1, 2, "x", 5, False, None), (2, 1, None, None, False, None), (3, 1, None, -1, True, None),
        (5, 1, None, None, False, None),
    ]  # fmt: skip
    times = "epoch_ms(_valid_from), epoch_ms(_valid_to)"
    assert held(lake, "docs_history", f"id, {times}, n, extra, score") == [
        (1, 10, 20, 1, None, None), (1, 20, 30, 1, "x", 5), (1, 30, None, 2, "x", 5), (2, 11, None, 1, None, None),
        (3, 21, None, 1, None, -1), (4, 12, 13, 1, None, None), (5, 14, None, 1, None, None),
    ]  # fmt: skip
    assert values(lake, "_partition, _offset, extra, score, _unset", "docs_changes") == [
        (0, 0, None, None, None), (0, 1, None, None, None), (0, 2, "x", 5, None), (0, 3, None, -1, None),
        (0, 4, None, 5, ["extra"]), (1, 0, None, None, None), (1, 1, None, None, None), (1, 2, None, None, None),
    ]  # fmt: skip
    assert values(lake, "_partition, _offset, _rules", "docs_quarantine") == [(0, 5, ["wrong_type:score"])]


def test_each_table_gains_what_it_keeps_of_a_column(local: Lake) -> None:
    stream, refs, late = grown_one_by_one(local)
    stream.commit(refs, gaps=no_gaps, now_ms=NOW)
    stream.commit(late, gaps=no_gaps, now_ms=NOW)
    verify_grown(local)
    found = {table.kind.name: DeltaTable(local.table_uri(table.name)) for table in stream.tables}
    gained = {kind: {f.name for f in table.schema().fields} & {TEXT, NUMBER} for kind, table in found.items()}
    both = {TEXT, NUMBER}
    assert gained == {"quarantine": set(), "changes": both, "memory": {TEXT}, "history": both, "current": both}
    for table in found.values():  # nothing says that they are not private
        assert not [
            name for name in pa.table(table.get_add_actions(flatten=True)).column_names if "min." + TEXT in name
        ]


@pytest.mark.parametrize("grown", range(5))
def test_a_committer_that_dies_between_two_tables_that_grow_is_followed_by_another(
    grown: int, local: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, refs, late = grown_one_by_one(local)
    left = iter(range(grown))

    def dying(evolve: Callable[[KeptTable], None]) -> Callable[[KeptTable], None]:
        def grow(table: KeptTable) -> None:
            if next(left, None) is None:
                raise Crash
            evolve(table)

        return grow

    with monkeypatch.context() as patch, pytest.raises(Crash):
        for kind in (StreamTable, MergeTable):
            patch.setattr(kind, "evolve", dying(kind.evolve))
        stream.commit(refs, gaps=no_gaps, now_ms=NOW)
    again = tables(local, growing())
    again.commit(late, gaps=no_gaps, now_ms=NOW)
    again.commit(refs, gaps=no_gaps, now_ms=NOW)
    verify_grown(local)


def test_a_committer_that_has_not_met_a_column_keeps_its_values(local: Lake) -> None:
    of = growing(truncate=Truncate.APPLY)
    old, new = refinery(local, of), refinery(local, of)
    stream, other = tables(local, of), tables(local, of)
    stream.commit(old.take(messages([change(0, 1, 10, 1, **BEFORE)])), gaps=no_gaps, now_ms=NOW)
    other.commit(new.take(messages([change(0, 2, 20, extra="x", score=5, **AFTER)])), gaps=no_gaps, now_ms=NOW)
    truncate = change(1, 1, 30, 1, _op="t", **BEFORE)
    stream.commit(old.take(messages([truncate])), gaps=no_gaps, now_ms=NOW)
    assert held(local, "docs", "id") == []
    ended = held(local, "docs_history", "id, extra, score, epoch_ms(_valid_to)")
    assert ended == [(1, None, None, 30), (2, "x", 5, 30)]


@pytest.mark.parametrize("count", [2, 4])
def test_lanes_that_meet_a_column_at_the_same_moment_all_go_on(count: int, local: Lake) -> None:
    source = Growing(7, growing(), keys=100)
    workers = Workers(source, local, count)
    source.run(100)
    workers.run(1)
    start = Barrier(count)

    def work(lane: Lane) -> None:
        start.wait()
        workers.streams[lane].commit(workers.waiting.pop(lane), gaps=no_gaps, now_ms=NOW)

    for name in (TEXT, NUMBER):
        source.gain(name)
        source.run(100)
        for rows, _ in source.in_batches(1):
            list(workers.refined(rows))
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(work, list(workers.streams)))
    workers.level()
    verify_all(workers)


def test_a_truncate_keeps_the_deleted_rows_of_tables_that_grew(local: Lake) -> None:
    of = growing(soft_deletes=True, truncate=Truncate.APPLY)
    works, stream = refinery(local, of), tables(local, of)
    for events in (
        [change(0, 1, 10, **BEFORE), change(1, 1, 11, _op="d", **BEFORE)],
        [change(2, 2, 20, extra="x", score=5, **AFTER)],
        [change(3, 2, 30, _op="t", **AFTER)],
    ):
        stream.commit(works.take(messages(events)), gaps=no_gaps, now_ms=NOW)
    left = held(local, "docs", "id, extra, score, _deleted, _op")
    assert left == [(1, None, None, True, "d"), (2, "x", 5, True, "t")]

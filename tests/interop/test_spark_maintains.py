"""Spark's DELETE, OPTIMIZE, REORG and VACUUM beside our running writer, and ours beside Spark's readers: nothing of a
commit is lost, no row is there twice, and the writer's index follows what others did."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from lakehouse.lake import Lake
from lakehouse.merge import checkpoints
from lakehouse.merge.compaction import compact
from lakehouse.merge.vacuum import vacuum
from lakehouse.table import StreamTable
from lakehouse.upkeep import rewritable
from tests.interop.equal import alike, assert_equal, by_duckdb, newest
from tests.interop.feed import Feed
from tests.interop.spark import Spark, lost_race
from tests.lakehouse.rows import offsets
from tests.lakehouse.state.source import Row, Source, contract
from tests.lakehouse.state.test_state_laws import held, verify

pytestmark = [pytest.mark.integration, pytest.mark.spark]
STATE = ("docs", "docs_history", "_tidegate/memory/docs")
OPTIMIZE, PURGE = "OPTIMIZE {}", "REORG TABLE {} APPLY (PURGE)"
VACUUM, VACUUM_ALL = "VACUUM {} RETAIN 1 HOURS", "VACUUM {} RETAIN 0 HOURS"
RACES = {"docs": (OPTIMIZE, PURGE), "docs_history": (PURGE, VACUUM), "docs_changes": (OPTIMIZE,)}
FULL = replace(contract(), full_identity=True)
UNSAFE = "spark.databricks.delta.retentionDurationCheck.enabled"


@pytest.fixture
def feed(local: Lake) -> Feed:
    source = Source(11, contract(), keys=200)
    source.run(2500)
    return Feed(source, local)


@pytest.fixture
def local(tmp_path: Path) -> Lake:
    return Lake.open(str(tmp_path / "lake"))


class Writer:
    """Commits a feed in a thread of its own, without a pause but where one is asked for."""

    def __init__(self, feed: Feed, most: int) -> None:
        self.feed, self.most = feed, most
        self.commits = 0
        self.failure: Exception | None = None
        self._ended = False
        self._idle, self._goes_on, self._hurries = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)  # a test that failed leaves it waiting

    def start(self) -> None:
        self._goes_on.set()
        self._thread.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the writer wait after a commit, as it does between two batches."""
        self._goes_on.clear()
        self._idle.wait()
        yield
        # Before it goes on: a pause that follows at once must not find it idle because it has not woken up yet.
        self._idle.clear()
        if self._ended:
            self._idle.set()
        self._goes_on.set()

    def finish(self) -> None:
        """Commit all that is left."""
        self._hurries.set()
        self._thread.join()
        if self.failure:
            raise self.failure

    def _run(self) -> None:
        try:
            while self.feed.left:
                if not self._goes_on.is_set():
                    self._idle.set()
                    self._goes_on.wait()
                self.feed.commit(self.feed.left if self._hurries.is_set() else self.most)
                self.commits += 1
        except Exception as error:  # noqa: BLE001 (given to the test)
            self.failure = error
        self._ended = True
        self._idle.set()


@contextmanager
def reading(spark: Spark, lake: Lake) -> Iterator[Counter[str]]:
    """Read the newest rows by Spark in a thread, again and again; gives how often each table was read."""
    ends, counts, failures = threading.Event(), Counter[str](), []

    def read() -> None:
        while not ends.is_set() and not failures:
            for table in STATE:
                try:
                    assert len(spark.read(lake, table)) > 0
                except Exception as error:  # noqa: BLE001 (given to the test)
                    failures.append(error)
                counts[table] += 1

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield counts
    finally:
        ends.set()
        thread.join()
    if failures:
        raise failures[0]


def test_what_spark_rewrites_beside_the_running_writer_stays_the_truth(spark: Spark, feed: Feed) -> None:
    lake, outcomes = feed.lake, Counter[str]()
    feed.commit(200)
    spark.session.conf.set(UNSAFE, "false")
    writer = Writer(feed, most=12)
    writer.start()
    for table, statements in RACES.items():
        for statement in statements:
            before = writer.commits
            outcomes[attempt(lambda: spark.run(statement, lake, table))] += 1  # noqa: B023
            with writer.paused():  # now Spark must win
                assert writer.commits > before and not writer.failure
                if statement != VACUUM:
                    spark.run(statement, lake, table)
    with writer.paused():
        spark.run(PURGE, lake, STATE[2])
        old = {table: files(lake, table) for table in ("docs", "docs_history")}
        for table in old:
            spark.run(VACUUM_ALL, lake, table)
        assert all(files(lake, table) < count for table, count in old.items())
        assert feed.left
    writer.finish()
    assert outcomes["done"] + outcomes["lost"] == 5 and outcomes["done"] > 0
    assert_truth(spark, feed)


def files(lake: Lake, table: str) -> int:
    return len(list(Path(lake.table_uri(table)).rglob("*.parquet")))


def attempt(statement: Callable[[], Any]) -> str:
    """Run a statement that may lose a race, and must not fail otherwise."""
    try:
        statement()
    except Exception as error:
        if not lost_race(error):
            raise
        return "lost"
    return "done"


def assert_truth(spark: Spark, feed: Feed) -> None:
    """Hold that the tables are what the source holds, for all readers, and each record is there once."""
    verify(feed.source, feed.lake)
    for table in (*STATE, "docs_changes"):
        assert assert_equal(spark, feed.lake, table) > 0
    found = offsets(feed.lake, "docs_changes")
    assert len(found) == len(set(found)) == feed.total


@pytest.mark.parametrize("statement", [OPTIMIZE, PURGE, "DELETE FROM {} WHERE n % 2 = 0"])
def test_a_commit_of_sparks_in_the_middle_of_ours_is_taken_in_and_ours_tried_again(
    spark: Spark, local: Lake, statement: str
) -> None:
    rows = Own(feed := Feed(Source(3, FULL), local))
    for turn in range(8):
        rows.upsert(range(turn * 10, 200 + turn * 10), n=turn)
    before = current(local)
    report = rows.upsert(range(150, 170), n=100, meanwhile=lambda: spark.run(statement, local, "docs"))
    assert report.retries == 1
    gone = {key for key, n in before.items() if n % 2 == 0} if statement.startswith("DELETE") else set()
    wanted = {key: n for key, n in before.items() if key not in gone} | dict.fromkeys(range(150, 170), 100)
    assert current(local) == wanted
    feed.restart()
    rows.upsert(range(5), n=7)
    assert current(local) == wanted | dict.fromkeys(range(5), 7)
    assert_equal(spark, local, "docs")


def test_rows_that_spark_deletes_stay_deleted_until_they_change_again(spark: Spark, local: Lake) -> None:
    rows = Own(feed := Feed(Source(3, FULL), local))
    rows.upsert(range(300), n=1)
    rows.upsert(range(100, 200), n=2)
    for table in ("docs", "docs_history", "docs_changes"):
        spark.run("DELETE FROM {} WHERE id BETWEEN 50 AND 149", local, table)
    rows.upsert(range(200, 300), n=3)
    wanted = {**dict.fromkeys(range(50), 1), **dict.fromkeys(range(150, 200), 2), **dict.fromkeys(range(200, 300), 3)}
    assert current(local) == wanted
    rows.upsert(range(140, 160), n=4)
    feed.restart()
    rows.upsert(range(130, 141), n=5)
    wanted |= dict.fromkeys(range(140, 160), 4) | dict.fromkeys(range(130, 141), 5)
    assert current(local) == wanted
    versions = Counter(held(local, "docs_history", "id, n", "_is_current"))
    assert versions == Counter(wanted.items())
    for table in STATE[:2]:
        assert_equal(spark, local, table)


def current(lake: Lake) -> dict[int, int]:
    """Give what the current table holds: key -> n."""
    found = held(lake, "docs", "id, n")
    assert len(dict(found)) == len(found)
    return dict(found)


class Own:
    """Changes said one by one, each with its whole row."""

    def __init__(self, feed: Feed) -> None:
        self.feed, self._at = feed, 0

    def upsert(self, ids: range, n: int, meanwhile: Callable[[], Any] | None = None) -> Any:
        rows = [self._change(i, n) for i in ids]
        return self.feed.apply(rows, meanwhile)

    def _change(self, number: int, n: int) -> Row:
        self._at += 1
        at = {"_position_major": self._at, "_position_minor": self._at, "_topic": "shop.docs", "_partition": 0}
        said = {"_op": "u", "_offset": self._at, "_kind": None, "_ingested_at": 0, "_source_time": self._at * 1000}
        return {"id": number, "n": n, "body": f"☃ {number}", "notes": None, **at, **said}


def test_our_compaction_and_vacuum_beside_sparks_readers(
    spark: Spark, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 4)
    lake = feed.lake
    feed.commit(200)
    feed.commit(100)
    begun, then = newest(lake, "docs"), alike(lake, "docs", by_duckdb(lake, "docs"))
    with reading(spark, lake) as counts:
        while feed.left > 600 or min(counts[table] for table in STATE) < 2:
            feed.commit(max(1, min(200, feed.left // 20)))
            feed.compact()
            for table in STATE:
                vacuum(lake, table, timedelta(hours=1))
    assert alike(lake, "docs", spark.read(lake, "docs", begun)) == then
    deleted = [vacuum(lake, table, timedelta(0)) for table in STATE]
    assert all(done.data_files and done.vector_files for done in deleted[:2])
    feed.commit(feed.left)
    spark.session.conf.set(UNSAFE, "false")
    for table in STATE[:2]:
        spark.run(VACUUM_ALL, lake, table)
    feed.restart()
    while feed.left:
        feed.commit(feed.left)
    assert_truth(spark, feed)


def test_a_stream_of_sparks_takes_each_change_once_across_our_compactions(
    spark: Spark, feed: Feed, tmp_path: Path
) -> None:
    compacted = 0
    while feed.left:
        for _ in range(10):
            feed.commit(40 if feed.left > 1_000 else feed.left)
        spark.follow(feed.lake, "docs_changes", tmp_path / "followed")
        compacted += compact_changes(feed)
    spark.follow(feed.lake, "docs_changes", tmp_path / "followed")
    assert compacted > 20
    taken = duckdb.sql(f"SELECT _partition, _offset FROM '{tmp_path / 'followed'}/*.parquet'").fetchall()
    assert sorted(taken) == sorted(offsets(feed.lake, "docs_changes"))
    assert len(taken) == feed.total


def compact_changes(feed: Feed) -> int:
    """Compact the change table as the writer does between commits; give the number of files rewritten."""
    (changes,) = (table for table in feed.stream.tables if table.name == "docs_changes")
    assert isinstance(changes, StreamTable)
    files = rewritable(feed.lake, changes, "test")
    files.open()
    return compact(files, 60).files

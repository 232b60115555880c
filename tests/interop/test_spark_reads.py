"""Spark gives the rows of every table, at every version, as DuckDB and deltalake do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from deltalake import DeltaTable

from contracts.model import Contract
from lakehouse.lake import Lake
from lakehouse.merge import checkpoints
from tests.interop.equal import TABLES, alike, assert_equal, by_deltalake, by_duckdb, newest
from tests.interop.feed import Feed
from tests.interop.spark import Spark
from tests.interop.wide import WideSource, wide
from tests.lakehouse.state.test_state_laws import verify

pytestmark = [pytest.mark.integration, pytest.mark.spark]
STATE = ("docs", "docs_history", "_tidegate/memory/docs")
CONTRACTS = {
    "wide": (wide(), 300, 1500),
    "partitioned": (wide(composite=True, partitioned=True, soft_deletes=True), 100, 600),
}


@dataclass(frozen=True)
class Told:
    """A lake, and what Spark read as its newest rows after some commits: (table, version, rows)."""

    lake: Lake
    source: WideSource
    seen: list[tuple[str, int, list[str]]]


@pytest.fixture(scope="module", params=CONTRACTS)
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, spark: Spark) -> Told:
    of, keys, changes = CONTRACTS[request.param]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoints, "EVERY", 4)
        return tell(of, keys, changes, tmp_path_factory.mktemp("lake"), spark)


def tell(of: Contract, keys: int, changes: int, folder: Path, spark: Spark) -> Told:
    """Commit a source in ten commits, with a compaction and a restart between; Spark reads after some."""
    source = WideSource(7, of, keys=keys, withholds=not of.partition_by)
    source.run(changes)
    lake = Lake.open(str(folder))
    feed, seen = Feed(source, lake), []
    for turn in range(100):
        feed.commit(max(1, feed.left // 12 + 40))
        if turn in (2, 5):
            assert feed.compact() > 0
        if turn == 4:
            feed.restart()
        if turn in (1, 2, 5):  # before, right after a compaction, and after a restart
            seen += [(table, newest(lake, table), alike(lake, table, spark.read(lake, table))) for table in STATE]
        if not feed.left:
            break
    return Told(lake, source, seen)


def test_the_tables_are_what_the_source_holds(told: Told) -> None:
    verify(told.source, told.lake)


@pytest.mark.parametrize("table", TABLES)
def test_the_newest_rows_are_equal(told: Told, spark: Spark, table: str) -> None:
    if table != "docs_quarantine" or not told.source.contract.partition_by:
        assert assert_equal(spark, told.lake, table) > 0


@pytest.mark.parametrize("table", TABLES)
def test_earlier_versions_are_equal(told: Told, spark: Spark, table: str) -> None:
    for version in versions(told.lake, table):
        rows = alike(told.lake, table, spark.read(told.lake, table, version), version)
        assert rows == alike(told.lake, table, by_deltalake(told.lake, table, version), version), version
        assert rows == alike(told.lake, table, by_duckdb(told.lake, table, version), version), version


def versions(lake: Lake, table: str) -> list[int]:
    """Give some versions: where the table was compacted, just before, and two others."""
    last = newest(lake, table)
    history = DeltaTable(lake.table_uri(table)).history()
    compacted = [entry["version"] for entry in history if entry["operation"] == "OPTIMIZE"][:1]
    return sorted({last // 2, max(0, last - 1), *compacted, *(version - 1 for version in compacted)})


def test_what_was_read_as_the_newest_is_read_as_that_version_later(told: Told) -> None:
    assert len(told.seen) == 9
    for table, version, rows in told.seen:
        assert rows and rows == alike(told.lake, table, by_deltalake(told.lake, table, version), version)


def test_the_log_holds_what_is_proven_here(told: Told) -> None:
    for table in ("docs", "docs_history"):
        folder = Path(told.lake.table_uri(table))
        assert list(folder.glob("_delta_log/*.checkpoint*.parquet")), table
        assert list(folder.glob("_vectors/*.bin")), table
        assert any('"OPTIMIZE"' in path.read_text() for path in folder.glob("_delta_log/*.json")), table

"""Spark gives the rows of tables that are written copy-on-write, and of migrated ones, as other readers do."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.model import Storage
from lakehouse.lake import Lake
from tests.interop.equal import alike, assert_equal, by_deltalake, newest
from tests.interop.spark import Spark
from tests.lakehouse.rows import tables
from tests.lakehouse.test_migration import STREAM, commit, contract, filled, migrated, orders

pytestmark = [pytest.mark.integration, pytest.mark.spark]


@pytest.mark.parametrize("before", Storage, ids=str)
def test_a_migrated_stream_is_equal_before_and_after_and_spark_goes_on_with_it(
    spark: Spark, tmp_path: Path, before: Storage
) -> None:
    lake = Lake.open(str(tmp_path))
    filled(lake, contract(before))
    after = next(one for one in Storage if one is not before)
    stood = {table: newest(lake, table) for table in STREAM}
    rows = {table: assert_equal(spark, lake, table) for table in STREAM}
    wanted = contract(after, ("note",), count="numeric(20,3)", rate="double precision")
    assert set(migrated(lake, wanted)) == set(STREAM)
    for table in STREAM:
        assert assert_equal(spark, lake, table) == rows[table]
        earlier = alike(lake, table, spark.read(lake, table, stood[table]), stood[table])
        assert earlier == alike(lake, table, by_deltalake(lake, table, stood[table]), stood[table])
    stream = commit(lake, tables(lake, wanted), [orders(18, 5, _op="u") | {"note": "moved"}, orders(19, 6, _op="d")])
    spark.run("DELETE FROM {} WHERE id = 7", lake, "orders")
    spark.run("OPTIMIZE {}", lake, "orders_history")
    commit(lake, stream, [orders(20, 8, _op="u") | {"note": "moved"}])
    for table in STREAM:
        assert assert_equal(spark, lake, table) > 0
    assert [row["id"] for row in sorted(by_deltalake(lake, "orders").to_pylist(), key=lambda row: row["id"])] == [
        0, 1, 2, 3, 4, 5, 8, 9,
    ]  # fmt: skip

"""Spark with Delta, on this machine alone: one session, little memory, nothing left behind."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from subprocess import Popen
from typing import Any

import pyarrow as pa
import pytest

from jobs.stack import jars
from lakehouse.lake import Lake

SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    # One machine, loopback only, short runs.
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "1",
    "spark.databricks.delta.snapshotPartitions": "1",
}


class Spark:
    """Reads tables of a lake by Spark, and runs statements on them."""

    def __init__(self, folder: Path) -> None:
        """Start the session; its files go below the folder."""
        if importlib.util.find_spec("pyspark") is None:
            pytest.fail("pyspark is missing: `make test` installs requirements/spark.lock")
        from pyspark import java_gateway
        from pyspark.sql import SparkSession

        delta = sorted(jars.jars("spark").glob("*.jar"))
        builder = SparkSession.builder.master("local[2]").appName("interop")
        for name, value in SETTINGS.items():
            builder = builder.config(name, value)
        builder = (
            builder.config("spark.jars", ",".join(map(str, delta)))
            .config("spark.local.dir", str(folder / "local"))
            .config("spark.sql.warehouse.dir", str(folder / "warehouse"))
        )
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(java_gateway, "Popen", _spawned)
            self.session = builder.getOrCreate()
        self.session.sparkContext.setLogLevel("OFF")

    def read(self, lake: Lake, table: str, version: int | None = None) -> pa.Table:
        """Give the rows of a table, of its newest version without one."""
        return self.session.sql(f"SELECT * FROM {_at(lake, table, version)}").toArrow()

    def run(self, statement: str, lake: Lake, table: str) -> list[tuple[object, ...]]:
        """Run a statement that has {} where the table stands; give its rows."""
        return [tuple(row) for row in self.session.sql(statement.format(_at(lake, table))).collect()]

    def follow(self, lake: Lake, table: str, folder: Path) -> None:
        """Copy the rows that a table got since the last call to Parquet files in a folder, as a stream."""
        rows = self.session.readStream.format("delta").load(lake.table_uri(table))
        query = rows.writeStream.format("parquet").option("checkpointLocation", f"{folder}.checkpoint")
        query.trigger(availableNow=True).start(str(folder)).awaitTermination()

    def stop(self) -> None:
        """End the session and its Java process."""
        from pyspark import SparkContext

        gateway = SparkContext._gateway
        self.session.stop()
        assert gateway is not None
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait(60)
        SparkContext._gateway = SparkContext._jvm = None


def _spawned(command: list[str], *, preexec_fn: object, **rest: Any) -> Popen[bytes]:
    """Start Spark's Java process without forking this one, which may be too large for that by the end of a test run.

    In a process group of its own Ctrl-C does not reach it, which is what preexec_fn is for.
    """
    return Popen(command, process_group=0, **rest)


def lost_race(error: Exception) -> bool:
    """Whether a statement failed because another commit came before its own."""
    return any(said in str(error) for said in ("DELTA_CONCURRENT_", "Concurrent", "DELTA_METADATA_CHANGED"))


def _at(lake: Lake, table: str, version: int | None = None) -> str:
    return f"delta.`{lake.table_uri(table)}`" + ("" if version is None else f" VERSION AS OF {version}")

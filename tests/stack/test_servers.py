"""The components as real servers: what a stack promises of Flink, S3 and the registry."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import obstore
import pytest
from obstore.store import S3Store

from jobs.stack import Stack, flink
from jobs.stack.flink_java import read
from jobs.stack.s3 import BUCKET
from tests import corpus

DOUBLING = """
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import DataTypes, StreamTableEnvironment
from pyflink.table.udf import udf

double = udf(lambda x: x * 2, result_type=DataTypes.BIGINT(), func_type="pandas")
environment = StreamExecutionEnvironment.get_execution_environment()
tables = StreamTableEnvironment.create(environment)
tables.create_temporary_function("twice", double)
tables.execute_sql("CREATE TEMPORARY TABLE numbers (x BIGINT) WITH ('connector'='datagen', 'rows-per-second'='100')")
tables.execute_sql("CREATE TEMPORARY TABLE nowhere (x BIGINT) WITH ('connector'='blackhole')")
statements = tables.create_statement_set()
statements.add_insert_sql("INSERT INTO nowhere SELECT twice(x) FROM numbers")
statements.attach_as_datastream()
environment.execute_async("doubling")
"""


def test_the_configuration_file_holds_flat_keys_and_none_of_the_launchers() -> None:
    text = flink.CONFIGURATION.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    keys = [line.split(":", 1)[0] for line in lines]
    assert all(not line.startswith(" ") and ": " in line for line in lines)
    assert len(keys) == len(set(keys))


def test_the_launchers_lines_replace_those_of_the_file_and_an_empty_value_takes_one_away() -> None:
    text = flink.configuration("# why\na.b: 1\nc: 2\nd: 3\n", {"a.b": "9", "d": "", "e": "5"})
    assert text == "# why\nc: 2\n\n# --- the launcher's lines\na.b: 9\ne: 5\n"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {"flink": {"taskmanager.numberOfTaskSlots": "3"}}
    with Stack(tmp_path_factory.mktemp("cluster"), ["flink"], settings=settings) as stack:
        yield stack


def get(stack: Stack, path: str) -> Any:
    return httpx.get(f"http://{stack.flink_address}{path}", timeout=10.0).json()


@pytest.mark.integration
def test_the_cluster_runs_with_the_projects_configuration(cluster: Stack) -> None:
    used = {line["key"]: line["value"] for line in get(cluster, "/jobmanager/config")}
    wanted = read(cluster.place("flink").folder / "conf")
    of_each_process = {"env.java.opts.all", "metrics.reporter.prom.port"}
    assert {key: used.get(key) for key in wanted.keys() - of_each_process} == {
        key: wanted[key] for key in wanted.keys() - of_each_process
    }
    assert get(cluster, "/overview")["slots-total"] == 3


@pytest.mark.integration
def test_both_processes_publish_metrics(cluster: Stack) -> None:
    for process in ("jobmanager", "taskmanager"):
        port = cluster.place("flink").ports[process]
        assert f"flink_{process}_Status_JVM" in httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10.0).text


@pytest.mark.integration
def test_a_job_survives_its_taskmanager_and_its_workers_end_with_the_stack(cluster: Stack, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(DOUBLING)
    command = [str(flink.distribution() / "bin" / "flink"), "run", "-d", "-m", cluster.flink_address]
    done = subprocess.run(
        [*command, "-py", str(tmp_path / "job.py")],
        env={**os.environ, **cluster.flink_environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "has been submitted" in done.stdout, done.stdout + done.stderr
    wait_until(lambda: len(cluster.workers()) >= 1)
    before = {worker.pid for worker in cluster.workers()}
    cluster.kill("taskmanager")
    cluster.restart("taskmanager")
    assert not before & {worker.pid for worker in cluster.workers()}
    wait_until(lambda: len(cluster.workers()) >= 1)
    assert cluster.down() == ["flink"]
    assert cluster.workers() == []
    assert cluster.up() == ["flink"]
    assert get(cluster, "/jobs") == {"jobs": []}


@pytest.mark.integration
def test_the_taskmanager_comes_back_to_a_new_jobmanager(cluster: Stack) -> None:
    cluster.kill("jobmanager")
    cluster.restart("jobmanager")
    assert get(cluster, "/overview")["taskmanagers"] == 1


@pytest.mark.integration
def test_objects_outlive_the_s3_server_and_strangers_are_refused(tmp_path: Path) -> None:
    with Stack(tmp_path, ["s3"]) as stack:
        obstore.put(store(stack), "kept", b"value")
        stack.kill("s3")
        stack.restart("s3")
        assert obstore.get(store(stack), "kept").bytes() == b"value"
        with pytest.raises(Exception, match=r"(?i)signature|denied|forbidden|403"):
            obstore.get(store(stack, AWS_SECRET_ACCESS_KEY="guess"), "kept")


def store(stack: Stack, **changes: str) -> S3Store:
    given = {**stack.s3_environment, **changes}
    return S3Store(
        BUCKET,
        endpoint=given["AWS_ENDPOINT_URL"],
        region=given["AWS_REGION"],
        access_key_id=given["AWS_ACCESS_KEY_ID"],
        secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


@pytest.mark.integration
def test_the_registry_serves_schemas_under_the_ids_they_were_given(tmp_path: Path) -> None:
    with Stack(tmp_path, ["registry"]) as stack:
        stack.put_schemas({number: corpus.schema(number) for number in corpus.schema_ids()})
        with httpx.Client(base_url=stack.registry_url, trust_env=False) as client:
            for number in corpus.schema_ids():
                assert json.loads(client.get(f"/schemas/ids/{number}").json()["schema"]) == json.loads(
                    corpus.schema(number)
                )
            assert client.get("/schemas/ids/9999").status_code == httpx.codes.NOT_FOUND


def wait_until(true: Any, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.2)

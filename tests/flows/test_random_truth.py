"""Random SQL on a real PostgreSQL through Debezium, Kafka and Flink: the current tables are what the database holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from contracts.load import load_contracts
from jobs.launch import Launch
from jobs.stack import Stack
from jobs.stack.capture import capture, release
from jobs.verify import verify
from tests.flows.pipeline import Pipeline
from tests.flows.streams import until
from tests.flows.workload import CAPTURED, Workload, write_contracts

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

SEED = int(os.environ.get("TIDEGATE_SEED", "1"))
CATCH_UP_SECONDS = 150.0


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    components = ["postgres", "registry", "connect", "flink"]
    with Stack(tmp_path_factory.mktemp("chain"), components) as stack:
        yield stack


@pytest.mark.parametrize("encoding", ["json", "json-schema", "avro"])
def test_the_tables_follow_the_source_through_all_it_does(
    chain: Stack, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = f"random-{encoding}"
    monkeypatch.setenv("WORKLOAD_PREFIX", prefix)
    monkeypatch.setenv("TIDEGATE_REGISTRY", chain.registry_url)
    with psycopg.connect(chain.postgres_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    workload = Workload(chain.postgres_url, SEED)
    workload.create()
    name = capture(chain, CAPTURED, encoding=encoding, prefix=prefix)
    contracts = write_contracts(tmp_path / "contracts", encoding)
    pipeline = Pipeline(chain, tmp_path / "lake", prefix)
    launch = Launch(pipeline.request(contracts))
    wanted = {topic for contract in launch.contracts for topic in contract.topics}
    until("every topic is there", lambda: wanted <= set(launch.kafka.topics()))
    job = launch.submit()
    try:
        workload.run(60)
        chain.kill("connect")  # what was not flushed is sent again
        workload.run(30)
        chain.restart("connect")
        workload.run(30)
        different = {}
        for contract in load_contracts(contracts, dict(os.environ)):
            found = verify(
                contract.stream, contracts, str(pipeline.lake), chain.postgres_url, wait_seconds=CATCH_UP_SECONDS
            )
            assert found.comparison.waiting_table == 0
            if not found.comparison.equal:
                different[contract.stream] = found.comparison.differences
        assert different == {}, f"seed {SEED}, {dict(workload.done)}"
    finally:
        launch.cluster.cancel(job)
        release(chain, name)

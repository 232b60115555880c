"""Random SQL on a real PostgreSQL through Debezium, Kafka and Flink: the current tables are what the database holds,
and the histories are what it did."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest

from contracts.columns import own_schema
from contracts.load import load_contracts
from contracts.model import Contract
from jobs.launch import Launch
from jobs.stack import Stack
from jobs.stack.capture import capture, release
from jobs.verify import verify
from tests.flows.pipeline import Pipeline
from tests.flows.streams import until
from tests.flows.workload import CAPTURED, Workload, write_contracts
from tests.flows.workload.changelog import gain_columns, log_changes, logged
from tests.flows.workload.histories import Row, differences

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

SEED = int(os.environ.get("TIDEGATE_SEED", "1"))
CATCH_UP_SECONDS = 150.0
GAINING = {"customProperties:": "customProperties:\n  - {vendor: tidegate, property: unknownFields, value: add}"}
GAINED = {
    "accounts": {"motto", "limited", "seen", "born", "code", "vip", "score", "facts", "raw", "visits"},
    "totals": {"total"},  # generated: snapshots hold it, and verify leaves it out
}


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
        workload = Workload(chain.postgres_url, SEED, truncates=True)
        workload.create()
        log_changes(connection)
    name = capture(chain, CAPTURED, encoding=encoding, prefix=prefix)
    gaining = {} if encoding == "json" else GAINING  # without a schema nothing tells a new column's type
    contracts = write_contracts(tmp_path / "contracts", encoding, **gaining)
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
        with psycopg.connect(chain.postgres_url, autocommit=True) as connection:
            gain_columns(connection)
        workload.run(30)
        different: dict[str, Sequence[object]] = {}
        for declared in load_contracts(contracts, dict(os.environ)):
            found = verify(
                declared.stream, contracts, str(pipeline.lake), chain.postgres_url, wait_seconds=CATCH_UP_SECONDS
            )
            assert found.comparison.waiting_table == 0
            contract = found.contract  # with what the stream gained
            assert gained(declared, contract) == (GAINED.get(declared.stream, set()) if gaining else set())
            columns = [name for name in own_schema(contract).names if name not in found.left_out]
            if not found.comparison.equal:
                different[declared.stream] = found.comparison.differences
            elif untold := different_history(pipeline, contract, columns):
                different[f"{declared.stream}_history"] = untold[:20]
        assert different == {}, f"seed {SEED}, {dict(workload.done)}"
    finally:
        launch.cluster.cancel(job)
        release(chain, name)


def gained(declared: Contract, contract: Contract) -> set[str]:
    """Give the columns that came by themselves."""
    return {field.name for field in contract.fields} - {field.name for field in declared.fields}


def different_history(pipeline: Pipeline, contract: Contract, columns: Sequence[str]) -> list[str]:
    """Say where a stream's history is not the source's changelog, once it had the time to become so."""
    until = time.monotonic() + CATCH_UP_SECONDS
    changes = logged(pipeline.stack.postgres_url, contract)
    key = [field.name for field in contract.key]
    while (found := differences(changes, history_of(pipeline, contract), key, columns)) and time.monotonic() < until:
        time.sleep(2)
    return found


def history_of(pipeline: Pipeline, contract: Contract) -> list[Row]:
    """Give the rows of a stream's history, the contract's columns as stored."""
    with pipeline.query() as duck:
        held: pa.Table = duck.execute(f"SELECT * FROM {contract.stream}_history").to_arrow_table()
    for field in own_schema(contract):
        held = held.set_column(held.schema.get_field_index(field.name), field, held[field.name].cast(field.type))
    rows: list[Row] = held.to_pylist()
    return rows

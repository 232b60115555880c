"""The random workload does what it is for, and its contracts fit its tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from contracts.load import load_contracts
from jobs.kafka.client import KafkaClient
from jobs.source import Source
from jobs.stack import Stack
from jobs.stack.capture import capture
from tests.flows.workload import CAPTURED, STREAMS, Workload, write_contracts
from tests.flows.workload.statements import TRANSACTIONS
from tests.stack.test_capture import messages, read

UNSET = "__debezium_unavailable_value"


@pytest.mark.parametrize("encoding", ["json", "json-schema", "avro"])
def test_the_contracts_are_sound(encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_REGISTRY", "http://registry:8081")
    found = load_contracts(write_contracts(tmp_path, encoding), {"WORKLOAD_PREFIX": "other"})
    assert sorted(c.stream for c in found) == sorted(STREAMS)
    assert {c.encoding for c in found} == {encoding}
    assert {t.split(".")[0] for c in found for t in c.topics} == {"other"}
    assert {t.split(".")[2] for c in found for t in c.topics} == set(CAPTURED)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("workload"), ["postgres", "connect"]) as stack:
        yield stack


@pytest.mark.integration
def test_a_seed_gives_the_same_tables_again_when_nobody_else_is_there(stack: Stack, tmp_path: Path) -> None:
    contracts = load_contracts(write_contracts(tmp_path), {})

    def outcome(seed: int) -> dict[str, Any]:
        clean(stack)
        workload = Workload(stack.postgres_url, seed, sessions=1)
        workload.create()
        workload.run(60)
        with Source.open(stack.postgres_url) as source:
            return {
                c.stream: sorted(repr(row) for batch in source.read(c, source.tables(c)) for row in batch.to_pylist())
                for c in contracts
            }

    first = outcome(1)
    assert all(first.values())
    assert outcome(1) == first
    assert outcome(2) != first


@pytest.mark.integration
def test_every_hard_thing_reaches_the_topics(stack: Stack) -> None:
    clean(stack)
    workload = Workload(stack.postgres_url, 7, truncates=True)
    workload.create()
    capture(stack, CAPTURED, prefix="work")
    done = workload.run(150)
    assert not {kind.__name__ for kind in TRANSACTIONS} - set(done)
    assert done["rolled back"] and done["truncate"]
    kafka = KafkaClient.from_file(None, stack.kafka_address)
    with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
        connection.execute("INSERT INTO accounts VALUES (777, 'the last', 0, now(), '')")
    ops, headers, unset = Counter[str](), Counter[str](), 0
    for table in ("accounts", *CAPTURED):
        for message in messages(stack, f"work.public.{table}", 1):
            headers.update(name for name, _ in message.headers)
            if message.value is not None:
                change = json.loads(message.value)
                ops[change["op"]] += 1
                unset += UNSET in (change["after"] or {}).values()
    assert set(ops) == {"r", "c", "u", "d", "t"}
    assert min(headers["__debezium.newkey"], headers["__debezium.oldkey"], unset) > 5
    assert len(read(kafka, "work.public.readings_2024")) > 5


def clean(stack: Stack) -> None:
    with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")

"""From a row in PostgreSQL to a message on a topic: the real database, the real connector, each encoding."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import httpx
import psycopg
import pytest
from kafka import TopicPartition

from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import end_offsets, partitions_of
from jobs.stack import Stack, StackError
from jobs.stack.capture import capture, release
from jobs.stack.postgres import DATABASE, OWNER, REPLICATOR, passwords, url

pytestmark = pytest.mark.integration

Message = Any  # a ConsumerRecord: topic, partition, offset, key, value
TABLE = "CREATE TABLE {} (id bigint PRIMARY KEY, note text DEFAULT 'none')"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("capture"), ["postgres", "connect", "registry"]) as stack:
        yield stack


@pytest.fixture
def database(stack: Stack) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
        yield connection


def read_json(stack: Stack, message: Message) -> Any:
    return json.loads(message.value)


def read_avro(stack: Stack, message: Message) -> Any:
    assert message.value[:1] == b"\0"
    number = int.from_bytes(message.value[1:5], "big")
    answer = httpx.get(f"{stack.registry_url}/schemas/ids/{number}", trust_env=False)
    schema = fastavro.parse_schema(json.loads(answer.json()["schema"]))
    return fastavro.schemaless_reader(BytesIO(message.value[5:]), schema)


READERS: dict[str, Callable[[Stack, Message], Any]] = {
    "json": read_json,
    "json-schema": lambda stack, message: read_json(stack, message)["payload"],
    "avro": read_avro,
}


@pytest.mark.parametrize("encoding", READERS)
def test_a_row_inserted_in_the_database_arrives_on_its_topic(
    stack: Stack, database: psycopg.Connection[Any], encoding: str
) -> None:
    table = f"rows_{encoding.replace('-', '_')}"
    database.execute(TABLE.format(table))
    database.execute(f"INSERT INTO {table} VALUES (1, 'before')")
    name = capture(stack, [table], encoding=encoding, prefix=f"enc-{encoding}")
    database.execute(f"INSERT INTO {table} VALUES (2, NULL)")
    found = [READERS[encoding](stack, m) for m in messages(stack, f"enc-{encoding}.public.{table}", 2)]
    by_id = {change["after"]["id"]: change for change in found}
    assert (by_id[1]["op"], by_id[1]["after"]["note"]) == ("r", "before")
    # Avro's converter knows no way to tell a NULL from the default.
    assert (by_id[2]["op"], by_id[2]["after"]["note"]) == ("c", "none" if encoding == "avro" else None)
    release(stack, name)


def test_a_killed_connector_goes_on_where_it_was(stack: Stack, database: psycopg.Connection[Any]) -> None:
    database.execute(TABLE.format("killed"))
    capture(stack, ["killed"], prefix="killed")
    database.execute("INSERT INTO killed VALUES (1)")
    messages(stack, "killed.public.killed", 1)
    stack.kill("connect")
    database.execute("INSERT INTO killed VALUES (2)")
    stack.restart("connect")
    found = [json.loads(m.value) for m in messages(stack, "killed.public.killed", 2)]
    assert {change["after"]["id"] for change in found} == {1, 2}
    release(stack, "killed")


def test_a_connector_outlives_a_restart_of_the_database(stack: Stack) -> None:
    with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
        connection.execute(TABLE.format("restarted"))
    capture(stack, ["restarted"], prefix="restarted")
    stack.kill("postgres")
    stack.restart("postgres")
    with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
        connection.execute("INSERT INTO restarted VALUES (1)")
    (message,) = messages(stack, "restarted.public.restarted", 1, seconds=60)
    assert json.loads(message.value)["after"]["id"] == 1
    release(stack, "restarted")


def test_the_connectors_user_may_read_and_replicate_and_nothing_else(stack: Stack) -> None:
    with psycopg.connect(url(stack.place("postgres"), REPLICATOR), autocommit=True) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE own (id int)")
        (replicates,) = connection.execute(
            "SELECT rolreplication FROM pg_roles WHERE rolname = current_user"
        ).fetchone()  # type: ignore[misc]
    assert replicates


def test_a_wrong_password_and_a_missing_one_are_refused(stack: Stack) -> None:
    port = stack.place("postgres").ports["sql"]
    for word in ("", ":guess"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(f"postgresql://{OWNER}{word}@127.0.0.1:{port}/{DATABASE}")


def test_no_password_is_in_an_address_a_connectors_settings_or_a_log(
    stack: Stack, database: psycopg.Connection[Any]
) -> None:
    database.execute(TABLE.format("secret"))
    name = capture(stack, ["secret"], prefix="secret")
    shown = httpx.get(f"http://{stack.address('connect')}/connectors/{name}", trust_env=False).text
    logs = [path.read_text(errors="replace") for path in stack.home.glob("*/log/*.out")]
    for word in passwords(stack.place("postgres")).values():
        assert not [text for text in (shown, stack.address("postgres"), *logs) if word in text]
    release(stack, name)


def test_what_cannot_be_captured_is_said(stack: Stack, tmp_path: Path) -> None:
    with pytest.raises(StackError, match="choose from json, json-schema, avro"):
        capture(stack, ["users"], encoding="xml")
    with pytest.raises(StackError, match=r"refuses .*topic\.prefix"):
        capture(stack, ["users"], prefix="not a topic!")
    with pytest.raises(StackError, match="stack up connect"):
        capture(Stack(tmp_path), ["users"])


def test_down_ends_all_of_it_and_the_data_is_there_at_the_next_start(tmp_path: Path) -> None:
    stack = Stack(tmp_path, ["postgres", "connect"])
    assert stack.up() == ["postgres", "kafka", "connect"]
    try:
        with psycopg.connect(stack.postgres_url) as connection:
            connection.execute(TABLE.format("kept"))
        capture(stack, ["kept"])
        backend = stack.process("postgres").children()
    finally:
        assert stack.down() == ["connect", "kafka", "postgres"]
    assert not [process for process in backend if process.is_running()]
    assert {p.missing for p in stack.status()} == {"stopped"}
    with stack:
        with psycopg.connect(stack.postgres_url) as connection:
            connection.execute("INSERT INTO kept VALUES (1)")
        messages(stack, "cdc.public.kept", 1)


def messages(stack: Stack, topic: str, count: int, seconds: float = 30.0) -> list[Message]:
    """Give the messages of a topic, as soon as there are so many keys: a killed connector may send some twice."""
    kafka, until = KafkaClient.from_file(None, stack.kafka_address), time.monotonic() + seconds
    found: list[Message] = []
    while len({message.key for message in found}) < count:
        assert time.monotonic() < until, f"{len(found)} messages in {topic}"
        time.sleep(0.2)
        found = read(kafka, topic) if topic in kafka.topics() else []
    return found


def read(kafka: KafkaClient, topic: str) -> list[Message]:
    """Give all messages of a topic."""
    ends = end_offsets(kafka, partitions_of(kafka, [topic]))
    with kafka.consumer(auto_offset_reset="earliest", group_id=None) as consumer:
        partitions = [TopicPartition(*partition) for partition, end in ends.items() if end]
        consumer.assign(partitions)
        found: list[Message] = []
        while any(consumer.position(p) < ends[p.topic, p.partition] for p in partitions):
            found += [message for part in consumer.poll(timeout_ms=500).values() for message in part]
        return found

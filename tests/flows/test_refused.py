"""What is wrong before anything starts: the command says so in a sentence that tells what to do, and exits with 1."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from jobs.kafka.client import KafkaClient
from jobs.kafka.topics import ensure_topics
from jobs.stack import Stack
from tests.flows.command import Said, tidegate
from tests.flows.streams import NOTE, write_contract

pytestmark = pytest.mark.integration


def run(contracts: Path, lake: Path | str, kafka: str, cluster: str, *more: str, **environment: str) -> Said:
    where = ("--contracts", str(contracts), "--lake", str(lake), "--kafka", kafka, "--cluster", cluster)
    return tidegate("run", *where, "--name", "refused", *more, environment=environment)


@pytest.fixture
def nobody() -> str:
    """An address at which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{unused.getsockname()[1]}"


@pytest.fixture
def sound(tmp_path: Path, kafka: KafkaClient) -> Path:
    """The contract of a topic that exists."""
    ensure_topics(kafka, {"refused.sound": 1})
    return write_contract(tmp_path / "contracts", "sound", "refused.sound")


def test_a_faulty_contract_is_refused_with_all_its_faults(stack: Stack, tmp_path: Path) -> None:
    columns = [{**NOTE, "classification": "private"}, {**NOTE, "name": "price", "physicalType": "numericc(12,2)"}]
    folder = write_contract(tmp_path / "contracts", "faulty", "t", columns)
    said = run(folder, tmp_path / "lake", stack.kafka_address, stack.flink_address)
    assert said.code == 1
    assert "2 fault(s) in 1 contract file(s)" in said.words
    assert "'note' is private and has no mask. Add the setting `mask`" in said.words
    assert "Did you mean 'numeric'?" in said.words
    assert not (tmp_path / "lake").exists()


def test_an_unknown_topic_is_refused_by_name(stack: Stack, tmp_path: Path) -> None:
    folder = write_contract(tmp_path / "contracts", "nowhere", "refused.nowhere")
    said = run(folder, tmp_path / "lake", stack.kafka_address, stack.flink_address)
    assert said.code == 1
    assert "has no topic refused.nowhere: create it, correct the contract, or pause its stream" in said.words


def test_a_missing_broker_is_told_within_seconds(stack: Stack, tmp_path: Path, sound: Path, nobody: str) -> None:
    said = run(sound, tmp_path / "lake", nobody, stack.flink_address)
    assert said.code == 1
    assert f"no Kafka broker answers at {nobody}" in said.words
    assert "check the address" in said.words
    assert said.seconds < 30


def test_a_missing_cluster_is_told_within_seconds(stack: Stack, tmp_path: Path, sound: Path, nobody: str) -> None:
    said = run(sound, tmp_path / "lake", stack.kafka_address, nobody)
    assert said.code == 1
    assert f"no Flink cluster answers at {nobody}" in said.words
    assert "--cluster HOST:PORT" in said.words
    assert said.seconds < 30


def test_a_wrong_s3_secret_is_refused(stack: Stack, sound: Path, tmp_path: Path) -> None:
    with Stack(tmp_path / "s3", components=("s3",)) as store:
        wrong = {**store.s3_environment, "AWS_SECRET_ACCESS_KEY": "wrong-secret"}
        said = run(sound, f"{store.lake}/refused", stack.kafka_address, stack.flink_address, **wrong)
        assert said.code == 1
        assert "Correct the secret key" in said.words
        assert "wrong-secret" not in said.words
        asked = tidegate("query", "SELECT 1", "--lake", f"{store.lake}/refused", environment=wrong)
        assert asked.code == 1
        assert "Correct the secret key" in asked.words


def test_a_missing_mask_key_is_refused_by_its_id(stack: Stack, tmp_path: Path, kafka: KafkaClient) -> None:
    ensure_topics(kafka, {"refused.masked": 1})
    mask = {"vendor": "tidegate", "property": "mask", "value": {"kind": "hash", "keyId": "nobody_has_it"}}
    columns = [{**NOTE, "classification": "private", "customProperties": [mask]}]
    folder = write_contract(tmp_path / "contracts", "masked", "refused.masked", columns)
    said = run(folder, tmp_path / "lake", stack.kafka_address, stack.flink_address)
    assert said.code == 1
    assert "nobody_has_it" in said.words

"""What is loaded into Kafka is what the files hold."""

from __future__ import annotations

import gzip
import json
import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import KafkaProblem
from jobs.kafka.client import KafkaClient
from jobs.kafka.load import load_files, read_messages
from jobs.kafka.offsets import end_offsets, partitions_of
from tests import corpus

KEPT = ("partition", "timestamp", "key", "value", "headers")


def consumed(kafka: KafkaClient, topic: str) -> dict[int, list[dict[str, Any]]]:
    """Give all messages of a topic by partition."""
    from kafka import TopicPartition

    partitions = partitions_of(kafka, [topic])
    wanted = sum(end_offsets(kafka, partitions).values())
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    with kafka.consumer(auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(*p) for p in partitions])
        while sum(len(messages) for messages in found.values()) < wanted:
            for place, records in consumer.poll(timeout_ms=1000).items():
                found[place.partition] += [{name: getattr(r, name) for name in KEPT} for r in records]
    return found


@pytest.mark.integration
def test_the_whole_corpus_arrives_as_it_is(kafka: KafkaClient) -> None:
    counts = load_files([f"{corpus.ARCHIVE}:{encoding}/*" for encoding in corpus.PREFIXES], kafka)
    assert sum(counts.values()) == 3 * 909
    compared = (("json", "users"), ("json", "audit_nopk"), ("avro", "docs"), ("json-schema", "transaction"))
    for encoding, table in compared:
        found = consumed(kafka, corpus.topic(encoding, table))
        for partition in range(3):
            wanted = [m for m in corpus.messages(encoding, table) if m["partition"] == partition]
            for message in found[partition]:
                message["headers"] = list(message["headers"])
            assert found[partition] == [{name: m[name] for name in KEPT} for m in wanted]


@pytest.mark.integration
def test_an_all_null_record_and_one_of_five_megabytes_are_loaded(kafka: KafkaClient, tmp_path: Path) -> None:
    topic = f"t-{uuid.uuid4().hex[:8]}"
    big = "A" * (4 * 5 * 1024 * 1024 // 3 // 4 * 4)
    lines = [line(topic=topic, key_b64=None, value_b64=None), line(topic=topic, value_b64=big), ""]
    path = tmp_path / "messages.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    assert load_files([path], kafka) == {topic: 2}
    first, second = consumed(kafka, topic)[0]
    assert (first["key"], first["value"]) == (None, None)
    assert len(second["value"]) == len(big) * 3 // 4


def line(**changes: Any) -> str:
    return json.dumps({"topic": "t", "partition": 0, "key_b64": "a2V5", "value_b64": "dg==", "headers": [], **changes})


FAULTS = {
    "{": "no JSON",
    "[1]": "a value has the wrong type",
    line(key_b64="***"): "a value has the wrong type",
    line(partition="first"): "a value has the wrong type",
    '{"topic": "t"}': "partition is missing",
    line(headers=[["name", None]]): "a value has the wrong type",
}


@pytest.mark.parametrize(("text", "said"), FAULTS.items())
def test_a_damaged_line_is_named_by_file_and_number(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "damaged.jsonl"
    path.write_text(f"{line()}\n\n{text}\n")
    with pytest.raises(KafkaProblem, match=rf"damaged\.jsonl:3: not a message \({said}\)"):
        list(read_messages(str(path)))


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.jsonl.gz", "missing.zip:*"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(KafkaProblem, match=r"missing.* cannot be read: No such file"):
        list(read_messages(str(tmp_path / name)))


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(KafkaProblem, match="holds no file that matches nothing"):
        list(read_messages(f"{corpus.ARCHIVE}:nothing*"))


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(line().encode())[:-12])
    with pytest.raises(KafkaProblem, match=r"cut\.gz cannot be read"):
        list(read_messages(str(tmp_path / "cut.gz")))


def test_a_missing_broker_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.kafka.client.CONNECT_MS", 500)
    with pytest.raises(KafkaProblem, match=r"no Kafka broker answers at 127\.0\.0\.1:9 .*check the address"):
        KafkaClient.from_file(None, "127.0.0.1:9").topics()

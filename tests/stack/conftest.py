"""One broker with every way in, for all tests of the Kafka verbs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from jobs.kafka.client import KafkaClient
from jobs.kafka.topics import ensure_topics
from jobs.stack import Stack


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("broker"), ["kafka"], settings={"kafka": {"secure": "true"}}) as stack:
        yield stack


@pytest.fixture
def kafka(broker: Stack) -> KafkaClient:
    return KafkaClient.from_file(None, broker.kafka_address)


@pytest.fixture
def topic(kafka: KafkaClient) -> str:
    """A fresh topic with one partition."""
    name = f"t-{uuid.uuid4().hex[:10]}"
    ensure_topics(kafka, {name: 1})
    return name

"""One Kafka, one Flink cluster and one S3 server for all flows; each flow has its own topics, lake and pipeline."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from jobs.kafka.client import KafkaClient
from jobs.kafka.load import load_files
from jobs.stack import Stack
from tests import corpus
from tests.flows.pipeline import Pipeline


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"demo = {base64.b64encode(b'k' * 32).decode()}\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIDEGATE_KEYS", str(keys))
        with Stack(tmp_path_factory.mktemp("stack"), components=("kafka", "flink")) as running:
            yield running


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A schema registry that holds the corpus's schemas under their ids; contracts find it in $TIDEGATE_REGISTRY."""
    home = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch, Stack(home, components=("registry",)) as running:
        running.put_schemas({number: corpus.schema(number) for number in corpus.schema_ids()})
        patch.setenv("TIDEGATE_REGISTRY", running.registry_url)
        yield running


@pytest.fixture(scope="session")
def corpus_in_kafka(stack: Stack, registry: Stack) -> Stack:
    """The whole corpus in its topics, in all three encodings."""
    patterns = [f"{corpus.ARCHIVE}:{encoding}/*" for encoding in corpus.PREFIXES]
    loaded = load_files(patterns, KafkaClient.from_file(None, stack.kafka_address))
    assert sum(loaded.values()) == 3 * corpus.MESSAGES
    return stack


@pytest.fixture
def kafka(stack: Stack) -> KafkaClient:
    return KafkaClient.from_file(None, stack.kafka_address)


@pytest.fixture
def pipeline(stack: Stack, tmp_path: Path, request: pytest.FixtureRequest) -> Pipeline:
    """A pipeline named after the test, into a local lake."""
    return Pipeline(stack, tmp_path / "lake", request.node.name.replace("[", "-").replace("]", ""))


@pytest.fixture
def quiet() -> Console:
    return Console(file=io.StringIO())

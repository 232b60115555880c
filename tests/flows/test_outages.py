"""What the pipeline needs goes away and comes back: the job waits or starts again, and each offset is there once."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cluster import Cluster
from jobs.kafka.client import KafkaClient
from jobs.kafka.topics import ensure_topics
from jobs.stack import Stack
from tests import corpus
from tests.flows.streams import Elsewhere, events, ids, metric, offsets, produce, running, until, write_contract

pytestmark = pytest.mark.integration


@pytest.fixture
def frail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A broker that may be killed."""
    with Stack(tmp_path_factory.mktemp("frail"), ("kafka",)) as broker:
        yield broker


def test_a_broker_or_a_registry_that_is_away_for_a_while_costs_only_time(
    stack: Stack, frail: Stack, registry: Stack, tmp_path: Path
) -> None:
    kafka = KafkaClient.from_file(None, frail.kafka_address)
    ensure_topics(kafka, {"away.plain": 1, "away.users": 1})
    contracts = write_contract(tmp_path / "contracts", "plain", "away.plain")
    users = Path(__file__).parents[1] / "data" / "contracts" / "avro" / "users.odcs.yaml"
    text = users.read_text(encoding="utf-8").replace("cdca.public.users", "away.users")
    (contracts / "users.odcs.yaml").write_text(text, encoding="utf-8")
    produce(kafka, "away.plain", events(1, 5))
    pipeline = Elsewhere(stack, tmp_path / "lake", "away", kafka=frail.kafka_address)
    with running(pipeline, contracts, identity_seconds=2.0) as (launch, job_id):
        until("the first records are there", lambda: ids(pipeline, "plain") == [1, 2, 3, 4, 5])

        # A registry that hangs is worse than one that is gone: connections come about, answers do not.
        server = registry.process("registry")
        server.send_signal(signal.SIGSTOP)
        try:
            until("the gauge shows it", lambda: unavailable(launch.cluster, job_id) == {"1"})
            produce(kafka, "away.users", [m["value"] for m in corpus.messages("avro", "users") if m["value"]][:4])
            time.sleep(5.0)  # the job asks in vain
            assert launch.cluster.why_failed(job_id) is None
            assert not offsets(pipeline, "users")
        finally:
            server.send_signal(signal.SIGCONT)
        until("the gauge shows that it is back", lambda: unavailable(launch.cluster, job_id) == {"0"})
        until("what waited is committed", lambda: len(offsets(pipeline, "users")) == 4)
        assert {epoch for epoch, _, _ in offsets(pipeline, "users")} == {0}  # nothing was quarantined

        frail.kill("broker")
        until("the broker is gone", lambda: not _listens(frail))
        frail.restart("broker")
        produce(kafka, "away.plain", events(6, 9))
        until("the job reads on", lambda: ids(pipeline, "plain") == list(range(1, 10)))
        assert launch.cluster.state(job_id) == "RUNNING"


def unavailable(cluster: Cluster, job_id: str) -> set[str]:
    """Give the values of the gauge, over all subtasks."""
    return metric(cluster, job_id, "registry_unavailable")


def _listens(broker: Stack) -> bool:
    return any(status.running for status in broker.status())

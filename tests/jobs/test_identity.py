"""Looking after the topics: a broker that is away holds up no commit, and is never taken for an answer."""

from __future__ import annotations

import pytest

from jobs import identity
from jobs.errors import KafkaProblem
from jobs.identity import IdentityWatch


class Broker:
    """Kafka as far as the watch asks."""

    def __init__(self) -> None:
        self.ids = {"a": "id-1", "b": "id-2"}
        self.away = False

    def topics(self) -> list[str]:
        if self.away:
            raise KafkaProblem("no Kafka broker answers")
        return sorted(self.ids)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    monkeypatch.setattr(identity, "topic_ids", lambda kafka, names: {name: kafka.ids[name] for name in names})
    monkeypatch.setattr(identity, "partitions_of", lambda kafka, names: [(name, 0) for name in names])
    monkeypatch.setattr(identity, "end_offsets", lambda kafka, partitions: dict.fromkeys(partitions, 9))
    return broker


def test_what_kafka_said_last_counts_while_it_is_away(broker: Broker) -> None:
    watch = IdentityWatch(broker, every_seconds=0.0)  # type: ignore[arg-type]
    first = watch.of(["a"])
    broker.away = True
    assert watch.of(["a"]) is first


def test_a_topic_that_was_never_asked_for_needs_an_answer(broker: Broker) -> None:
    watch = IdentityWatch(broker, every_seconds=0.0)  # type: ignore[arg-type]
    watch.of(["a"])
    broker.away = True
    for _ in range(2):  # a failure is not remembered as an answer
        with pytest.raises(KafkaProblem):
            watch.of(["a", "b"])
    broker.away = False
    assert watch.of(["b"]).ids == {"a": "id-1", "b": "id-2"}


def test_a_deleted_topic_is_left_out_until_it_is_there_again(broker: Broker) -> None:
    watch = IdentityWatch(broker, every_seconds=0.0)  # type: ignore[arg-type]
    watch.of(["a", "b"])
    del broker.ids["b"]
    assert watch.of(["a", "b"]).ids == {"a": "id-1"}
    broker.ids["b"] = "id-3"
    assert watch.of(["a", "b"]).ids["b"] == "id-3"


def test_a_reader_that_went_back_is_a_reason_to_ask_at_once(broker: Broker) -> None:
    watch = IdentityWatch(broker)  # type: ignore[arg-type]
    watch.of(["a"])
    broker.ids["a"] = "id-9"
    assert watch.of(["a"]).ids["a"] == "id-1"
    assert watch.of(["a"], now=True).ids["a"] == "id-9"

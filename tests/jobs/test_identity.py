"""Looking after the topics: a broker that is away holds up no commit, and is never taken for an answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs import identity
from jobs.committer import Committer
from jobs.errors import KafkaProblem
from jobs.identity import IdentityWatch
from jobs.metrics import NoMetrics
from jobs.settings import IngestSettings
from lakehouse.lake import Lake
from tests.lakehouse.state.source import CONTRACT
from udfs.keys import KeyRing


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


def test_a_pattern_stands_for_the_topics_whose_whole_name_matches(broker: Broker) -> None:
    watch = IdentityWatch(broker)  # type: ignore[arg-type]
    assert watch.of(["a"]).ids.keys() == {"a"}
    broker.ids["bb"] = "id-3"
    assert watch.of([], pattern="b").ids.keys() == {"a", "b"}
    assert watch.of(["bb"], pattern="b").ids.keys() == {"a", "b", "bb"}
    assert watch.of(["bb"], pattern="b").only(lambda topic: topic != "a").ends == {("b", 0): 9, ("bb", 0): 9}


def test_a_stream_is_told_of_all_its_topics_and_of_no_others(broker: Broker, tmp_path: Path) -> None:
    broker.ids |= {"c": "id-3", "other": "id-4"}
    contracts = {
        "named": replace(CONTRACT, topics=("a", "b")),
        "matched": replace(CONTRACT, topics=(), topic_pattern="[bc]"),
        "one": replace(CONTRACT, topics=("other",)),
    }
    settings = IngestSettings("p", "contracts", "kafka:9092", str(tmp_path), "group")
    kafka, lake = broker, Lake.open(str(tmp_path))
    committer = Committer(settings, contracts, lake, KeyRing({}), kafka, NoMetrics())  # type: ignore[arg-type]
    for stream, read, topics in (("one", "other", ["other"]), ("named", "b", ["a", "b"]), ("matched", "c", ["b", "c"])):
        told = committer._identity_of(stream, {read}, now=False)
        assert sorted(told.ids) == topics and sorted(told.ends) == [(topic, 0) for topic in topics]

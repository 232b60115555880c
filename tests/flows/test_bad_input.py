"""Records and topics that are odd, broken or huge, together in one job: each is a row, a quarantine row, or told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from jobs.kafka.client import KafkaClient
from jobs.kafka.topics import ensure_topics
from jobs.stack import Stack
from tests import corpus
from tests.flows.pipeline import Pipeline, accounted
from tests.flows.streams import ID, NOTE, events, ids, offsets, produce, write_contract

pytestmark = pytest.mark.integration

FIVE_MB = 5 * 1024 * 1024
TEXTS = [
    "Straße – naïve",
    "日本語テキスト",
    "\U0001f469\u200d\U0001f467 family",
    "e\u0301 is not é",
    "\u202eright to left",
    "tab\tand\nnewline",
    "nul \x00 inside",
    "",
]
WIDE = [ID, *({**NOTE, "name": f"column_{n:04}"} for n in range(999))]


@pytest.fixture(scope="module")
def odd(stack: Stack, registry: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pipeline, Path]]:
    """One run over all that is odd."""
    kafka = KafkaClient.from_file(None, stack.kafka_address)
    folder = tmp_path_factory.mktemp("odd")
    contracts = folder / "contracts"
    for stream in ("huge", "texts", "empty", "single", "transactions", "broken"):
        write_contract(contracts, stream, f"odd.{stream}")
        ensure_topics(kafka, {f"odd.{stream}": 1}, {"max.message.bytes": str(2 * FIVE_MB)})
    write_contract(contracts, "wide", "odd.wide", WIDE)
    ensure_topics(kafka, {"odd.wide": 1, "odd.users": 1})
    _write_users_contract(contracts)
    _fill(kafka, stack.kafka_address)
    pipeline = Pipeline(stack, folder / "lake", "odd")
    done = pipeline.catch_up(contracts)
    assert done["parked"] == []
    yield pipeline, contracts


def _write_users_contract(contracts: Path) -> None:
    """The corpus's own contract of users in Avro, for another topic."""
    text = (Path(__file__).parents[1] / "data" / "contracts" / "avro" / "users.odcs.yaml").read_text(encoding="utf-8")
    (contracts / "users.odcs.yaml").write_text(text.replace("cdca.public.users", "odd.users"), encoding="utf-8")


def _fill(kafka: KafkaClient, bootstrap: str) -> None:
    produce(kafka, "odd.huge", [*events(1, 1), {"id": 2, "note": "x" * FIVE_MB}, *events(3, 3)])
    produce(kafka, "odd.texts", [{"id": n, "note": text} for n, text in enumerate(TEXTS)])
    produce(kafka, "odd.single", events(1, 1))
    produce(kafka, "odd.broken", [*events(1, 2), b'{"id": 3, "no', b"\xff\xfe\x00", b"", b"[]", *events(4, 5)])
    produce(kafka, "odd.wide", [{"id": 1, **{f"column_{n:04}": f"value {n}" for n in range(999)}}])
    _write_transactions(bootstrap, "odd.transactions")
    whole = [m["value"] for m in corpus.messages("avro", "users") if m["value"]][:3]
    produce(kafka, "odd.users", [whole[0], whole[1][:-7], whole[1][:3], whole[2]])


def _write_transactions(bootstrap: str, topic: str) -> None:
    """Two committed transactions among three aborted ones: the topic ends with markers and aborted records."""
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": "odd"}, logger=None)
    producer.init_transactions(30)
    for number, commits in enumerate((False, True, False, True, False)):
        producer.begin_transaction()
        for n in range(10):
            producer.produce(topic, value=b'{"id": %d, "note": "t"}' % (number * 10 + n), partition=0)
        producer.flush(30)
        if commits:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)


def test_a_record_of_five_megabytes_is_a_row_like_any_other(odd: tuple[Pipeline, Path]) -> None:
    with odd[0].query() as duck:
        assert duck.execute("SELECT id, len(note) FROM huge_changes WHERE id = 2").fetchall() == [(2, FIVE_MB)]
    assert ids(odd[0], "huge") == [1, 2, 3]


def test_a_thousand_columns_arrive_each_with_its_value(odd: tuple[Pipeline, Path]) -> None:
    with odd[0].query() as duck:
        row = duck.execute("SELECT COLUMNS('column_.*') FROM wide_changes").fetchall()[0]
    assert row == tuple(f"value {n}" for n in range(999))


def test_text_of_any_script_is_stored_as_it_was_sent(odd: tuple[Pipeline, Path]) -> None:
    with odd[0].query() as duck:
        found = duck.execute("SELECT note FROM texts_changes ORDER BY id").fetchall()
    assert [note for (note,) in found] == TEXTS


def test_an_empty_topic_and_one_with_a_single_record_are_caught_up(odd: tuple[Pipeline, Path]) -> None:
    assert ids(odd[0], "single") == [1]
    assert not odd[0].counts(odd[1])["empty"]


def test_aborted_transactions_leave_no_row_and_their_markers_hold_nothing_up(odd: tuple[Pipeline, Path]) -> None:
    assert ids(odd[0], "transactions") == [*range(10, 20), *range(30, 40)]
    assert accounted(odd[0].counts(odd[1])["transactions"]) == 20


def test_broken_json_is_quarantined_alone(odd: tuple[Pipeline, Path]) -> None:
    assert ids(odd[0], "broken") == [1, 2, 4, 5]
    found = offsets(odd[0], "broken")
    assert set(found.values()) == {1}
    assert sorted(offset for _, _, offset in found) == list(range(8))
    with odd[0].query() as duck:
        told = duck.execute("SELECT _offset, _stage, _rules, _reason FROM broken_quarantine ORDER BY 1").fetchall()
    assert [(offset, stage) for offset, stage, _, _ in told] == [(n, "decode") for n in (2, 3, 4, 5)]
    assert all(rules == ["undecodable"] and reason for _, _, rules, reason in told)


def test_truncated_avro_is_quarantined_alone(odd: tuple[Pipeline, Path]) -> None:
    with odd[0].query() as duck:
        good = duck.execute("SELECT _offset FROM users_changes ORDER BY 1").fetchall()
        bad = duck.execute("SELECT _offset, _stage, _reason FROM users_quarantine ORDER BY 1").fetchall()
    assert good == [(0,), (3,)]
    assert [(offset, stage) for offset, stage, _ in bad] == [(1, "decode"), (2, "decode")]

"""Quarantine rows: what they tell, and that nothing private is in them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.columns import QUARANTINE
from contracts.model import Action, Contract, Encoding, Envelope, Mask, PayloadPolicy, Rule, Unrepresentable
from tests import corpus
from tests.udfs import batches
from tests.udfs.rows import KEYS, NOW_MS, changes, contract, field, records
from udfs.changes import Rejects
from udfs.ciphers import Unreadable
from udfs.payloads import open_payload
from udfs.quarantine import quarantine_rows
from udfs.refine import refine
from udfs.rules import check


def person(**rest: Any) -> Contract:
    """Give a contract with private fields and rules that break on a marked record."""
    return contract(
        field("id", "bigint", key_position=1),
        field("ssn", key_position=2, private=True, mask=Mask("hash", key_id="first")),
        field("email", private=True, mask=Mask("email_hash", key_id="first")),
        field("secret", private=True, mask=Mask("drop")),
        field("amount", "numeric(12,2)"),
        rules=(
            Rule("low", "minimum", Action.QUARANTINE, "id", {"value": 10}),
            Rule("form", "pattern", Action.QUARANTINE, "email", {"pattern": "never"}),
            Rule("condition", "expression", Action.QUARANTINE, None, {"sql": "length(ssn) > 1000 AND secret > email"}),
        ),
        **rest,
    )


ROW = {"id": 1, "ssn": "123-45-6789", "email": "ann.lee@example.com", "secret": "hush", "amount": None}


def quarantined(of: Contract, rows: list[dict[str, Any]], raw: pa.Table | None = None) -> pa.Table:
    read = changes(of, rows)
    rejects = check(read, of, NOW_MS).rejects
    assert rejects is not None
    return quarantine_rows(records(len(rows)) if raw is None else raw, [rejects], read, of, KEYS, NOW_MS)


def test_a_readable_record_keeps_its_masked_key_and_fields() -> None:
    table = quarantined(person(), [{**ROW, "_op": "u", "_position_minor": 7}, {"id": None, "_op": "t"}])
    assert table.schema == QUARANTINE
    (row,) = table.to_pylist()
    assert (row["_stage"], row["_op"], row["_position_minor"]) == ("check", "u", 7)
    assert row["_rules"] == ["low", "form", "condition"]
    assert (row["_topic"], row["_partition"], row["_offset"]) == ("t", 0, 0)
    assert row["_payload_form"] == "masked"
    payload = json.loads(row["_payload"])
    assert list(payload) == ["id", "ssn", "email", "amount"]
    assert payload["email"].endswith("@example.com")
    assert json.loads(row["_key"]) == {"id": 1, "ssn": payload["ssn"]}
    assert row["_kafka_time"].timestamp() * 1000 == row["_ingested_at"].timestamp() * 1000 == NOW_MS


def test_an_unreadable_record_keeps_its_coordinates_only() -> None:
    of = person()
    rejects = Rejects.of("decode", [2], [["undecodable"]], ["the value is no JSON"])
    table = quarantine_rows(records(3, value=b"{bad"), [rejects], changes(of, [ROW]), of, KEYS, NOW_MS)
    (row,) = table.to_pylist()
    assert (row["_offset"], row["_rules"], row["_payload"], row["_payload_form"]) == (2, ["undecodable"], None, "none")
    assert row["_key"] is None
    assert quarantine_rows(records(3), [rejects], None, of, KEYS, NOW_MS).num_rows == 1


def test_rejects_of_several_stages_become_one_table_in_the_order_of_the_records() -> None:
    of = person()
    read = changes(of, [ROW, ROW])
    moved = type(read)(read.table, pa.array([1, 3]))
    checked = check(moved, of, NOW_MS).rejects
    assert checked is not None
    decode = Rejects.of("decode", [0, 2], [["undecodable"]] * 2, ["the value is no JSON"] * 2)
    table = quarantine_rows(records(4), [decode, checked], moved, of, KEYS, NOW_MS)
    assert table["_offset"].to_pylist() == [0, 1, 2, 3]
    assert table["_key"].is_null().to_pylist() == [True, False, True, False]


def test_nothing_rejected_gives_an_empty_table() -> None:
    of = person()
    assert quarantine_rows(records(1), [], changes(of, [ROW]), of, KEYS, NOW_MS).schema == QUARANTINE


def test_the_policy_none_keeps_no_payload() -> None:
    (row,) = quarantined(person(payload=PayloadPolicy.NONE), [ROW]).to_pylist()
    assert (row["_payload"], row["_payload_form"], row["_payload_key_id"]) == (None, "none", None)


@pytest.mark.parametrize(("key", "value"), [(b"k", b"v"), (None, b"v"), (b"", None), (None, None), (b"k" * 300, b"")])
def test_an_encrypted_payload_opens_with_its_key_and_coordinates(key: bytes | None, value: bytes | None) -> None:
    of = person(payload=PayloadPolicy.ENCRYPTED, payload_key_id="second")
    raw = pa.Table.from_pylist([{**records(1).to_pylist()[0], "key": key, "value": value}], records(1).schema)
    (row,) = quarantined(of, [ROW], raw).to_pylist()
    assert (row["_payload_form"], row["_payload_key_id"]) == ("encrypted", "second")
    assert open_payload(row, KEYS) == (key, value)
    with pytest.raises(Unreadable):
        open_payload({**row, "_offset": 5}, KEYS)


def test_the_schema_id_of_an_avro_record_is_kept_even_when_it_cannot_be_read() -> None:
    avro = contract(field("id", "bigint"))
    avro = type(avro)(**{**avro.__dict__, "encoding": Encoding.AVRO})
    values = [b"\x00\x00\x00\x01\x02rest", b"\x01\x00\x00\x00\x02", b"\x00\x01", None]
    rows = [{**record, "value": value} for record, value in zip(records(4).to_pylist(), values, strict=True)]
    rejects = Rejects.of("decode", [0, 1, 2, 3], [["undecodable"]] * 4, ["no"] * 4)
    table = quarantine_rows(pa.Table.from_pylist(rows, records(1).schema), [rejects], None, avro, KEYS, NOW_MS)
    assert table["_schema_id"].to_pylist() == [258, None, None, None]


PRIVATE = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=6, max_size=30)


@given(PRIVATE, PRIVATE, PRIVATE, st.sampled_from(list(PayloadPolicy)))
@settings(max_examples=80, deadline=None)
def test_no_private_value_is_ever_in_a_quarantine_row(ssn: str, email: str, secret: str, policy: PayloadPolicy) -> None:
    of = person(payload=policy, payload_key_id="second")
    row = {**ROW, "ssn": ssn, "email": email, "secret": secret}
    raw = records(1, key=json.dumps({"ssn": ssn}).encode(), value=json.dumps(row, default=str).encode())
    table = quarantined(of, [row], raw)
    seen = _everything(table)
    for private in (ssn, email, secret):
        if private not in _everything(quarantined(of, [{**ROW, "ssn": "-", "email": "-", "secret": "-"}])):
            assert private not in seen
            assert json.dumps(private)[1:-1] not in seen


def _everything(table: pa.Table) -> str:
    """Give all that a table says, as one text."""
    columns = [column.to_pylist() for column in table.columns]
    return " ".join(v.decode("latin-1") if isinstance(v, bytes) else str(v) for column in columns for v in column)


def test_a_record_with_a_value_that_cannot_be_stored_keeps_its_other_fields_masked() -> None:
    email = field("email", private=True, mask=Mask("email_hash", key_id="first"))
    made = contract(field("id", "bigint", key_position=1), email, field("born", "date"))
    of = replace(made, envelope=Envelope.PLAIN, unrepresentable=Unrepresentable.QUARANTINE)
    values = [b'{"id":1}', b"{", b'{"id":2,"email":"ann.lee@example.com","born":"infinity"}', b"["]
    refined = refine(batches.raw(values), of, corpus.schema, KEYS, NOW_MS)
    assert refined.rejects["_offset"].to_pylist() == [1, 2, 3]
    assert refined.rejects["_stage"].to_pylist() == ["decode", "normalise", "decode"]
    assert refined.rejects["_payload_form"].to_pylist() == ["none", "masked", "none"]
    row = refined.rejects.to_pylist()[1]
    assert json.loads(row["_key"]) == {"id": 2}
    payload = json.loads(row["_payload"])
    assert (payload["id"], payload["born"]) == (2, None)
    assert payload["email"].endswith("@example.com") and "ann.lee" not in payload["email"]

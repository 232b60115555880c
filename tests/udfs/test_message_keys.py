"""Kafka keys read as the contract's key columns, in every encoding of the corpus."""

from __future__ import annotations

import dataclasses
import json

import pyarrow as pa
import pytest

from contracts.model import Mask
from tests import corpus
from tests.udfs import batches
from tests.udfs.corpus_state import ENCODINGS, contract, normalised
from tests.udfs.rows import KEYS
from udfs.masks import mask
from udfs.message_keys import header_keys, read_keys
from udfs.normalise import normalise

KEYED = ["users", "products", "order_items", "metrics_2024", "Mixed_Case", "types_torture"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("table", KEYED)
def test_keys_equal_the_key_columns_of_their_values(encoding: str, table: str) -> None:
    records, made = corpus.records(encoding, table), contract(encoding, table)
    read = read_keys(records["key"].combine_chunks(), made, corpus.schema)
    changes = normalised(encoding, table).changes
    kept = changes.table["_op"].combine_chunks().to_pylist()
    for field in made.key:
        found = read[field.name].take(changes.row).to_pylist()
        values = changes.table[field.name].to_pylist()
        assert [v for v, op in zip(found, kept, strict=True) if op != "t"] == [
            v for v, op in zip(values, kept, strict=True) if op != "t"
        ]


def test_an_unreadable_key_is_null() -> None:
    made = batches.contract({"id": "bigint"})
    records = batches.raw([b"x"] * 4, keys=[b'{"id":1}', b"{", None, b'{"id":"x"}'])
    assert read_keys(records["key"].combine_chunks(), made, corpus.schema)["id"].to_pylist() == [1, None, None, None]


def test_a_delete_without_before_takes_its_key_from_kafka() -> None:
    made = batches.contract({"id": "bigint", "name": "text"})
    values = [batches.event(None, "d"), batches.event({"id": 2, "name": "b"})]
    found = normalise(batches.raw(values, keys=[b'{"id":1}', b'{"id":2}']), made, corpus.schema, now_ms=1)
    assert found.changes.table.select(["id", "name"]).to_pylist() == [{"id": 1, "name": None}, {"id": 2, "name": "b"}]


KEY_TYPES = {
    "id": ("bigint", b"7", 7),
    "day": ("date", b"19000", "2022-01-08"),
    "at": ("timestamp(3)", b"1700000000123", "2023-11-14T22:13:20.123000"),
    "amount": ("numeric(12,2)", b'"AZA="', "4.00"),
    "raw": ("bytea", b'"AQI="', "0102"),
}


@pytest.mark.parametrize("name", KEY_TYPES)
def test_a_key_in_a_header_is_written_as_its_column_stores_it(name: str) -> None:
    physical, sent, stored = KEY_TYPES[name]
    made = batches.contract({"id": physical})
    header = b'{"id":' + sent + b"}"
    found = header_keys(
        pa.chunked_array([pa.array([None, header, b"{", b'{"schema":{},"payload":' + header + b"}"])]), made
    )
    assert [None if text is None else json.loads(text) for text in found.to_pylist()] == [
        None, {"id": stored}, None, {"id": stored},
    ]  # fmt: skip


@pytest.mark.parametrize("name", KEY_TYPES)
def test_a_masked_key_in_a_header_is_the_same_token_as_in_its_column(name: str) -> None:
    physical, sent, _ = KEY_TYPES[name]
    plain = batches.contract({"id": physical})
    made = dataclasses.replace(plain, fields=(dataclasses.replace(plain.fields[0], mask=Mask("hash", key_id="first")),))
    value = batches.event(None, "c").replace(b'"after":null', b'"after":{"id":' + sent + b"}")
    records = batches.raw([value], keys=[b'{"id":' + sent + b"}"], old_key=b'{"id":' + sent + b"}")
    masked = mask(normalise(records, made, corpus.schema, now_ms=1).changes, made, KEYS).table.to_pylist()
    assert json.loads(masked[0]["_previous_key"])["id"] == masked[0]["id"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_update_of_what_only_the_contract_calls_the_key_names_the_row_it_was(encoding: str) -> None:
    of = contract(encoding, "audit_full")
    named = [dataclasses.replace(f, key_position=1 if f.name == "what" else None) for f in of.fields]
    keyed = dataclasses.replace(of, fields=tuple(named), full_identity=True)
    table = normalise(corpus.records(encoding, "audit_full"), keyed, corpus.schema, 1).changes.table
    seen = {(row["_op"], row["what"], row["_previous_key"]) for row in table.to_pylist()}
    assert seen == {
        ("r", "boot", None),
        ("c", "login", None),
        ("u", "LOGIN", '{"what":"login"}'),
        ("d", "boot", None),
    }


def test_an_update_that_leaves_the_key_as_it_is_names_no_other() -> None:
    full = batches.contract({"id": "bigint", "name": "text"}, full_identity=True)
    before = {"id": 1, "name": "ann"}
    values = [batches.event({"id": i, "name": "bob"}, "u", before) for i in (1, 2)] + [batches.event({"id": 3})]
    table = normalise(batches.raw(values), full, corpus.schema, 1).changes.table
    assert table["_previous_key"].to_pylist() == [None, '{"id":1}', None]
    default = normalise(batches.raw(values), dataclasses.replace(full, full_identity=False), corpus.schema, 1)
    assert default.changes.table["_previous_key"].null_count == 3, "old rows are not true there"

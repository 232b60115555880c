"""Kafka keys read as the contract's key columns, in every encoding of the corpus."""

from __future__ import annotations

import pytest

from tests import corpus
from tests.udfs import batches
from tests.udfs.corpus_state import ENCODINGS, contract, normalised
from udfs.message_keys import read_keys
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

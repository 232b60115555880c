"""A value that was not sent is in no table: not among the columns that the contract does not name either."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.model import Encoding, UnknownFields
from tests import corpus
from tests.udfs import batches
from tests.udfs.batches import change, event, raw
from tests.udfs.rows import KEYS, NOW_MS
from udfs.placeholders import BASE64, CODES, IN_MAP, PLACEHOLDER, unsent
from udfs.refine import refine

UNSENT: list[Any] = [
    PLACEHOLDER, BASE64, [PLACEHOLDER], [BASE64], CODES, {PLACEHOLDER: PLACEHOLDER}, IN_MAP[0],
    {"scale": 0, "value": BASE64},
]  # fmt: skip
SENT: list[Any] = [None, "", f"{PLACEHOLDER} ", [], [PLACEHOLDER, PLACEHOLDER], CODES[1:], {}, {"a": PLACEHOLDER}, 0]


@pytest.mark.parametrize("value", UNSENT, ids=repr)
def test_an_unsent_value_of_an_unknown_column_is_left_out(value: Any) -> None:
    of = batches.contract({"id": "bigint"}, unknown_fields=UnknownFields.KEEP)
    rows = [event({"id": 1, "more": value, "n": 1}, "u"), event({"id": 2, "more": value}, "u")]
    found = refine(raw(rows), of, corpus.schema, KEYS, NOW_MS).rows
    assert found["_extra"].to_pylist() == ['{"n":1}', None]


@pytest.mark.parametrize("value", SENT, ids=repr)
def test_nothing_else_is_taken_for_unsent(value: Any) -> None:
    assert not unsent(value)


def test_it_is_left_out_in_avro_too() -> None:
    texts = {"type": "array", "items": "string"}
    columns = [{"name": n, "type": t} for n, t in {"id": "long", "a": "string", "b": "bytes", "c": texts}.items()]
    registry = batches.Registry({1: batches.envelope_schema(columns)})
    of = batches.contract({"id": "bigint"}, Encoding.AVRO, unknown_fields=UnknownFields.KEEP)
    row = {"id": 1, "a": PLACEHOLDER, "b": PLACEHOLDER.encode(), "c": [PLACEHOLDER]}
    values = [registry.framed(1, change(after, "u")) for after in (row, {**row, "a": "x"})]
    assert refine(raw(values), of, registry, KEYS, NOW_MS).rows["_extra"].to_pylist() == [None, '{"a":"x"}']

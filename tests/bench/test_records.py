"""The benchmark's records are what Debezium would write: the same content in both encodings, at the stated size."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import fastavro
import pyarrow.compute as pc

from tests.bench.as_avro import KEY_SCHEMA, VALUE_SCHEMA, AvroRecords
from tests.bench.as_json import MEAN_BYTES, JsonRecords
from tests.bench.records import Records

MADE = Records(5_000, 3_000)


def _decoded(datums: list[bytes], schema: str) -> list[Any]:
    parsed = fastavro.parse_schema(json.loads(schema))
    plain = json.loads(json.dumps(parsed).replace('"logicalType": "decimal"', '"was": "decimal"'))
    return [fastavro.schemaless_reader(io.BytesIO(datum[5:]), plain, None) for datum in datums]


def test_values_have_exactly_the_stated_mean_length() -> None:
    lengths = pc.binary_length(JsonRecords(MADE).values())
    assert pc.sum(lengths).as_py() == MEAN_BYTES * len(lengths)
    assert pc.min_max(lengths).as_py()["max"] < 700


def test_both_encodings_say_the_same() -> None:
    texts = [json.loads(value) for value in JsonRecords(MADE).values().to_pylist()]
    datums = _decoded(AvroRecords(MADE).values().to_pylist(), VALUE_SCHEMA)
    for text in texts:
        row = text["after"] or text["before"]
        row["balance"] = base64.b64decode(row["balance"])
    assert datums == texts


def test_keys_say_the_same() -> None:
    texts = [json.loads(key) for key in JsonRecords(MADE).keys().to_pylist()]
    assert _decoded(AvroRecords(MADE).keys().to_pylist(), KEY_SCHEMA) == texts


def test_the_same_seed_gives_the_same_records() -> None:
    assert JsonRecords(Records(0, 200)).values() == JsonRecords(Records(0, 200)).values()
    assert JsonRecords(Records(0, 200)).keys() != JsonRecords(Records(0, 200, seed=2)).keys()

"""Keys are written as JSON and read again as they were, whatever their type: key changes lead from one to the other."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from contracts.model import Contract, Encoding, Envelope, Field
from contracts.types import parse_type
from lakehouse.merge.keys import keys_of
from lakehouse.state.events import json_keys, parsed_keys
from udfs.canonical import json_objects

MOMENT = dt.datetime(2024, 1, 1, 1, 2, 3, 4)
KEYS: list[tuple[str, list[Any]]] = [
    ("text", ["", "\0", "é☃", 'a"b\n', "x" * 100_000, "1", "null"]),
    ("bytea", [b"", b"\0\xff", b"x" * 10_000]),
    ("bigint", [0, -1, 2**63 - 1, -(2**63)]),
    ("numeric(38,4)", [Decimal("0"), Decimal("-1.5000"), Decimal(10**33)]),
    ("double precision", [0.0, -0.0, math.nan, math.inf, -math.inf, 0.1]),
    ("real", [0.5, math.nan]),
    ("boolean", [True, False]),
    ("date", [dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
    ("timestamp(6)", [MOMENT]),
    ("timestamptz", [MOMENT.replace(tzinfo=dt.UTC)]),
    ("uuid", ["5c3d0e7a-6f1b-4c07-8d2b-0a4f6f1f5f00"]),
]


@pytest.mark.parametrize(("kind", "values"), KEYS, ids=[kind for kind, _ in KEYS])
def test_a_key_is_read_as_it_was_written(kind: str, values: list[Any]) -> None:
    key = Field("k", "k", parse_type(kind), key_position=1)
    of = Contract("s", "1.0.0", "s.yaml", Encoding.JSON, Envelope.DEBEZIUM, (key,))
    table = pa.table({"k": pa.array(values, key.type.arrow)})
    for written in (json_keys(table), json_objects(table)):
        read = parsed_keys(written.to_pylist(), of, table.schema)
        one, other = keys_of([table["k"]]), keys_of([read["k"]])
        assert one.low.tolist() == other.low.tolist()
        for text, number in zip(written.to_pylist(), one.low.tolist(), strict=True):  # alone too
            assert keys_of([parsed_keys([text], of, table.schema)["k"]]).low.tolist() == [number]

"""Values that the stored type holds are accepted whatever the declared digits; others are refused with the reason."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import pytest

from contracts.model import Encoding, Envelope
from tests.udfs import batches
from tests.udfs.batches import change, contract, event, raw, text
from udfs.normalise import normalise

ENCODINGS = list(Encoding)
WIDE, SCALE = 10**38, 2
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 60, "scale": SCALE}
REGISTRY = batches.Registry(
    {
        1: batches.envelope_schema([{"name": "id", "type": "long"}, {"name": "n", "type": DECIMAL}]),
        2: batches.envelope_schema([{"name": "id", "type": "long"}, {"name": "n", "type": "double"}]),
        3: batches.envelope_schema([{"name": "id", "type": "long"}, {"name": "n", "type": "long"}]),
        4: batches.envelope_schema([{"name": "id", "type": "long"}, {"name": "n", "type": "string"}]),
    }
)
AS_BYTES = batches.Registry(
    {1: batches.envelope_schema([{"name": "id", "type": "long"}, {"name": "n", "type": "bytes"}])}
)
CONNECT = {
    1: {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": str(SCALE)}},
    2: {"type": "double"},
    3: {"type": "int64"},
    4: {"type": "string"},
}


def unscaled(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)


def written(encoding: Encoding, schema: int, value: Any) -> bytes:
    """Give a change whose column n holds a value; numbers of schema 1 are unscaled."""
    if encoding is Encoding.AVRO:
        # fastavro's writer refuses decimals that a broken source may send: their bytes are written as such.
        return AS_BYTES.framed(1, change({"id": 1, "n": unscaled(value)})) if schema == 1 else _avro(schema, value)
    image = {"id": 1, "n": base64.b64encode(unscaled(value)).decode() if schema == 1 else value}
    if encoding is Encoding.JSON:
        return event(image)
    columns = [{"field": "id", "type": "int64"}, {"field": "n", **CONNECT[schema]}]
    own = {"type": "struct", "fields": [{"field": "after", "type": "struct", "fields": columns}]}
    return text({"schema": own, "payload": change(image)})


def _avro(schema: int, value: Any) -> bytes:
    return REGISTRY.framed(schema, change({"id": 1, "n": value}))


def read(encoding: Encoding, declared: str, schema: int, value: Any) -> tuple[Any, list[str]]:
    """Give what is stored, and the rules by which the record is refused."""
    made = contract({"id": "bigint", "n": declared}, encoding)
    found = normalise(raw([written(encoding, schema, value)]), made, REGISTRY, 1)
    rules = [rule for one in found.rejects for names in one.rules.to_pylist() for rule in names]
    return (found.changes.table["n"].to_pylist() or [None])[0], rules


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("number", [10**5, 10**14, WIDE - 1, -WIDE + 1])
def test_a_decimal_with_more_digits_than_declared_is_stored_as_it_is(encoding: Encoding, number: int) -> None:
    assert read(encoding, "numeric(6,2)", 1, number) == (
        Decimal((number < 0, tuple(map(int, str(abs(number)))), -2)),
        [],
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("number", [WIDE, -WIDE, 10**60, -(10**200)])
def test_a_decimal_of_more_than_38_digits_is_refused(encoding: Encoding, number: int) -> None:
    assert read(encoding, "numeric(6,2)", 1, number) == (None, ["wrong_type:n"])


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("number", [2**15, 2**31, 2**63 - 1, -(2**63)])
def test_an_integer_wider_than_declared_is_stored_as_it_is(encoding: Encoding, number: int) -> None:
    assert read(encoding, "smallint", 3, number) == (number, [])


@pytest.mark.parametrize("encoding", [Encoding.JSON, Encoding.JSON_SCHEMA])
@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**40])
def test_an_integer_beyond_64_bits_is_refused(encoding: Encoding, number: int) -> None:
    assert read(encoding, "bigint", 3, number) == (None, ["wrong_type:n"])


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("declared", "schema", "value"),
    [("bigint", 2, 1.5), ("bigint", 4, "many"), ("boolean", 3, 1), ("date", 4, "soon"), ("numeric(6,2)", 2, 1.5),
     ("text", 3, 7), ("double precision", 4, "much"), ("timestamptz", 4, "later"), ("text[]", 4, "one")],
)  # fmt: skip
def test_a_value_of_another_type_is_refused_and_stops_nothing(
    encoding: Encoding, declared: str, schema: int, value: Any
) -> None:
    made = contract({"id": "bigint", "n": declared}, encoding)
    found = normalise(raw([written(encoding, schema, value), None]), made, REGISTRY, 1)
    assert [one.rules.to_pylist() for one in found.rejects] == [[["wrong_type:n"]]]
    assert found.kinds.to_pylist() == ["rejected", "tombstone"]


@pytest.mark.parametrize("encoding", [Encoding.JSON, Encoding.AVRO])
def test_a_real_that_grows_beyond_its_range_is_flagged_not_lost(encoding: Encoding) -> None:
    made = contract({"id": "bigint", "n": "real"}, encoding)
    found = normalise(raw([written(encoding, 2, 1e300)]), made, REGISTRY, 1).changes
    assert found.table["n"].to_pylist() == [None]
    assert found.flags["n"].to_pylist() == ["out_of_range"]


def test_a_plain_number_with_too_many_digits_is_refused() -> None:
    made = contract({"id": "bigint", "n": "numeric(6,2)"}, envelope=Envelope.PLAIN)
    values = [b'{"id":1,"n":1234567890.12}', b'{"id":1,"n":1.234}', b'{"id":1,"n":%d}' % 10**37]
    found = normalise(raw(values), made, REGISTRY, 1)
    assert found.changes.table["n"].to_pylist() == [Decimal("1234567890.12")]
    assert [one.rules.to_pylist() for one in found.rejects] == [[["wrong_type:n"]] * 2]

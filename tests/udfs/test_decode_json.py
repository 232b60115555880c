"""JSON records in their odd shapes: each is a row, or refused for its own reason, whatever stands beside it."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import pytest

from contracts.model import Contract, Encoding, Envelope, UnknownFields, Unrepresentable
from tests.udfs import batches
from tests.udfs.batches import contract, event, raw, text
from udfs.changes import Normalised
from udfs.normalise import normalise

COLUMNS = {"id": "bigint", "name": "text", "d": "double precision", "amount": "numeric(12,2)"}
GOOD = event({"id": 1, "name": "ann", "d": 1.5, "amount": "AMg="})


def read(*values: bytes | None, made: Contract | None = None, **headers: bytes) -> Normalised:
    """Give the records normalised together."""
    return normalise(raw(list(values), **headers), made or contract(COLUMNS), _no_registry, now_ms=5)


def _no_registry(schema_id: int) -> str:
    raise AssertionError("JSON needs no registry")


def refusal(found: Normalised) -> tuple[str, list[str]]:
    """Give stage and rules of the one refused record."""
    (rejects,) = found.rejects
    assert len(rejects) == 1
    return rejects.stage, rejects.rules[0].as_py()


def column(found: Normalised, name: str) -> list[Any]:
    """Give one column of the changes."""
    return list(found.changes.table[name].to_pylist())


@pytest.mark.parametrize(
    ("value", "stage", "rule"),
    [
        (b"", "decode", "undecodable"),
        (b"{", "decode", "undecodable"),
        (b"[1]", "decode", "undecodable"),
        (b"5", "decode", "undecodable"),
        (b"\xff\xfe", "decode", "undecodable"),
        (GOOD[:-1], "decode", "undecodable"),
        (GOOD + GOOD, "decode", "undecodable"),
        (GOOD + b"\n" + GOOD, "decode", "undecodable"),
        (GOOD.replace(b"ann", b"a\xffn"), "decode", "undecodable"),
        (GOOD.replace(b"ann", rb"\ud83d"), "decode", "undecodable"),
        (GOOD.replace(b"ann", b"a\x00n"), "decode", "undecodable"),
        (b'{"x":' + b"[" * 100_000, "decode", "undecodable"),
        (b'{"hello":"world"}', "decode", "no_envelope"),
        (GOOD.replace(b'"op":"c"', b'"op":"z"'), "decode", "no_envelope"),
        (event(None), "decode", "no_envelope"),
        (event({"id": "1"}), "normalise", "wrong_type:id"),
        (event({"id": 1.5}), "normalise", "wrong_type:id"),
        (event({"id": True}), "normalise", "wrong_type:id"),
        (event({"id": 2**63}), "normalise", "wrong_type:id"),
        (event({"id": 1, "name": 5}), "normalise", "wrong_type:name"),
        (event({"id": 1, "d": "1.5"}), "normalise", "wrong_type:d"),
        (event({"id": 1, "amount": "%%%"}), "normalise", "wrong_type:amount"),
        (event({"id": 1, "amount": ""}), "normalise", "wrong_type:amount"),
    ],
)
def test_a_bad_record_is_refused_alone(value: bytes, stage: str, rule: str) -> None:
    found = read(GOOD, value, GOOD)
    assert found.kinds.to_pylist() == ["data", "rejected", "data"]
    assert refusal(found) == (stage, [rule])
    assert found.rejects[0].row.to_pylist() == [1]


def test_no_reason_holds_a_value_of_the_record() -> None:
    found = read(
        event({"id": "secret-4711", "name": 5}), b'{"secret-4711":', event({"id": 1, "amount": "secret-4711!"})
    )
    assert len(found.changes) == 0
    for rejects in found.rejects:
        assert "4711" not in repr((rejects.reason.to_pylist(), rejects.rules.to_pylist()))


def test_two_records_that_only_together_look_like_one_are_both_refused() -> None:
    whole = GOOD.decode()
    cut = whole.index('"name"')
    halves = [whole[:cut].encode() + b"}", b"{" + whole[cut:].encode()]
    found = read(GOOD, *halves, GOOD + GOOD, GOOD)
    assert found.kinds.to_pylist() == ["data", "rejected", "rejected", "rejected", "data"]


def test_one_poison_record_in_ten_thousand_is_found_by_splitting() -> None:
    values = [event({"id": n, "d": 0.5}) for n in range(10_000)]
    values[7_777] = event({"id": "x"})
    found = read(*values)
    assert found.rejects[0].row.to_pylist() == [7_777]
    assert len(found.changes) == 9_999
    assert 1 <= found.fallbacks <= 4


def test_special_doubles_and_minus_zero_are_kept() -> None:
    found = read(*(event({"id": 1, "d": d}) for d in ("NaN", "Infinity", "-Infinity", -0.0)))
    nan, up, down, zero = column(found, "d")
    assert math.isnan(nan)
    assert (up, down) == (math.inf, -math.inf)
    assert math.copysign(1, zero) == -1


def test_a_missing_field_is_null_and_the_last_of_two_counts() -> None:
    found = read(event({"id": 1}), GOOD.replace(b'"id":1', b'"id":1,"id":2'))
    assert column(found, "name") == [None, "ann"]
    assert column(found, "id") == [1, 2]


@pytest.mark.parametrize("name", ["Größe “L” 日本 🚲", "", "a\u0000b", 'line1\nline2\t"q" \\', "x" * 5_000_000])
def test_text_arrives_as_it_was(name: str) -> None:
    assert column(read(GOOD, event({"id": 1, "name": name}), GOOD), "name")[1] == name


def test_white_space_around_and_between_is_legal() -> None:
    found = read(b" " + GOOD + b"\r\n", json.dumps(json.loads(GOOD), indent=1).encode(), GOOD)
    assert column(found, "id") == [1, 1, 1]


def test_a_thousand_columns() -> None:
    made = contract({"id": "bigint", **{f"c{n}": "text" for n in range(1_000)}})
    found = read(event({"id": 1, "c999": "last"}), made=made)
    assert column(found, "c999") == ["last"]
    assert column(found, "c0") == [None]


def test_kinds_are_told_apart_record_by_record() -> None:
    message = {**batches.change(None, "m"), "message": {"prefix": "p", "content": ""}}
    marker = {"status": "END", "id": "1:2", "event_count": 1, "data_collections": [], "ts_ms": 1}
    found = read(GOOD, None, b"null", b'{"ts_ms":1}', text(marker), text(message), event(None, "t"))
    assert found.kinds.to_pylist() == ["data", "tombstone", "tombstone", "heartbeat", "transaction", "message", "data"]
    assert column(found, "_op") == ["c", "t"]
    assert column(found, "id") == [1, None]


def test_a_contract_without_fields_only_counts() -> None:
    found = read(b'{"any":"thing"}', GOOD, made=contract({}))
    assert found.kinds.to_pylist() == ["unknown", "signal"]
    assert len(found.changes) == 0


def test_what_connect_says_of_time_and_scale_wins_over_the_contract() -> None:
    made = contract({"id": "bigint", "amount": "numeric(14,4)", "at": "timestamp"}, Encoding.JSON_SCHEMA)
    decimal = {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}}
    columns = [{**decimal, "field": "amount"}, {"type": "int64", "name": "io.debezium.time.Timestamp", "field": "at"}]
    schema = {"type": "struct", "fields": [{"type": "struct", "field": "after", "fields": columns}]}
    row = {"id": 1, "amount": "FT8=", "at": 1_700_000_000_123}
    found = read(text({"schema": schema, "payload": batches.change(row)}), made=made)
    assert column(found, "amount") == [Decimal("54.3900")]
    assert column(found, "at")[0].microsecond == 123_000


def test_a_scale_that_would_lose_digits_is_refused() -> None:
    made = contract({"id": "bigint", "amount": "numeric(12,2)"}, Encoding.JSON_SCHEMA)
    decimal = {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "4"}}
    schema = {"fields": [{"field": "after", "fields": [{**decimal, "field": "amount"}]}]}
    values = [text({"schema": schema, "payload": batches.change({"id": 1, "amount": a})}) for a in ("MDk=", "MAw=")]
    found = read(*values, made=made)
    assert refusal(found) == ("normalise", ["wrong_type:amount"])
    assert column(found, "amount") == [Decimal("1.23")]


@pytest.mark.parametrize("policy", list(UnknownFields))
def test_fields_the_contract_does_not_know(policy: UnknownFields) -> None:
    made = contract(COLUMNS, unknown_fields=policy)
    odd = event({"id": 2, "more": {"a": [1, 2.50]}, "less": None}).replace(b"2.5", b"2.50")
    found = read(GOOD, odd, made=made)
    if policy is UnknownFields.QUARANTINE:
        assert refusal(found) == ("normalise", ["unknown_field"])
    else:
        kept = '{"more":{"a":[1,2.50]},"less":null}' if policy in (UnknownFields.KEEP, UnknownFields.ADD) else None
        assert column(found, "_extra") == [None, kept]


def test_the_contract_says_whether_an_unrepresentable_value_is_null_or_refused() -> None:
    columns = {"id": "bigint", "at": "timestamptz"}
    value = event({"id": 1, "at": "infinity"})
    found = read(value, made=contract(columns))
    assert column(found, "at") == [None]
    assert found.changes.flags["at"].to_pylist() == ["infinity"]
    strict = read(value, made=contract(columns, unrepresentable=Unrepresentable.QUARANTINE))
    assert refusal(strict) == ("normalise", ["unrepresentable:at"])


def test_a_renamed_column_is_read_under_its_old_name() -> None:
    import dataclasses

    made = contract({"id": "bigint", "remark": "text"})
    renamed = dataclasses.replace(made.fields[1], aliases=("note",))
    made = dataclasses.replace(made, fields=(made.fields[0], renamed))
    found = read(event({"id": 1, "note": "old"}), event({"id": 2, "remark": "new"}), made=made)
    assert column(found, "remark") == ["old", "new"]


def test_keys_in_headers_hold_only_key_fields() -> None:
    wrapped = text({"schema": {}, "payload": {"id": 30, "x": 1}})
    found = read(GOOD, old_key=wrapped, new_key=b"not json")
    assert column(found, "_previous_key") == ['{"id":30}']
    assert column(found, "_next_key") == [None]


PLAIN = {
    "id": "bigint",
    "price": "numeric(30,2)",
    "any": "numeric",
    "at": "timestamptz",
    "ms": "timestamp",
    "day": "date",
    "raw": "bytea",
    "meta": "jsonb",
}


def plain(**row: Any) -> bytes:
    """Give a plain event."""
    return text(row)


def test_a_plain_event_is_read_exactly() -> None:
    made = contract(PLAIN, envelope=Envelope.PLAIN, units={"ms": "ms"})
    numbers = b'{"id":1,"price":0.1,"any":12345678901234567890.12,"ms":1500,"day":"2024-02-29"'
    numbers += b',"at":"2024-01-01T02:00:00+02:00"}'
    words = plain(
        id=2, price="12345678901234567890.12", any="0.10", raw="AQI=", meta={"a": [1]}, at="2024-01-01T00:00:00Z"
    )
    found = read(numbers, words, made=made)
    assert not found.rejects
    assert column(found, "price") == [Decimal("0.10"), Decimal("12345678901234567890.12")]
    assert column(found, "any") == ["12345678901234567890.12", "0.1"]
    assert [str(v) for v in column(found, "at")] == ["2024-01-01 00:00:00+00:00"] * 2
    assert str(column(found, "ms")[0]) == "1970-01-01 00:00:01.500000"
    assert str(column(found, "day")[0]) == "2024-02-29"
    assert column(found, "raw") == [None, b"\x01\x02"]
    assert column(found, "meta") == [None, '{"a":[1]}']
    assert column(found, "_op") == ["e", "e"]
    assert column(found, "_position_minor") == [0, 1]
    assert column(found, "_position_major") == [0, 0]


@pytest.mark.parametrize("price", [b"0.001", b'"x"', b'"NaN"', b"true", b"1e40"])
def test_a_plain_decimal_that_does_not_fit_is_refused(price: bytes) -> None:
    made = contract(PLAIN, envelope=Envelope.PLAIN)
    found = read(b'{"id":1,"price":' + price + b"}", made=made)
    assert refusal(found) == ("normalise", ["wrong_type:price"])


def test_event_time_is_the_field_else_the_source_else_kafka() -> None:
    import dataclasses

    from contracts.model import EventTime

    made = contract({"id": "bigint", "at": "timestamptz"})
    made = dataclasses.replace(made, event_time=EventTime(field="at"))
    found = read(event({"id": 1, "at": "2024-01-01T00:00:00Z"}), event({"id": 2}), made=made)
    assert [str(v) for v in column(found, "_event_time")] == [
        "2024-01-01 00:00:00+00:00",
        "2023-11-14 22:13:20.000001+00:00",
    ]
    event_of = read(b'{"id":1}', made=contract({"id": "bigint"}, envelope=Envelope.PLAIN))
    assert str(column(event_of, "_event_time")[0]) == "2023-11-14 22:13:20+00:00"

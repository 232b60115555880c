"""Confluent-framed Avro: schemas mixed in a batch, damaged datums, unknown schemas, a registry that is down."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pytest

from contracts.model import Encoding, Envelope, UnknownFields
from tests.udfs import batches
from tests.udfs.batches import Registry, contract, raw
from udfs.avro_container import HEADER, Reader
from udfs.changes import RegistryUnavailable
from udfs.normalise import normalise

AMOUNT = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
REGISTRY = Registry(
    {
        1: batches.envelope_schema([{"name": "id", "type": "long"}, {"name": "amount", "type": AMOUNT}]),
        2: batches.envelope_schema(
            [
                {"name": "id", "type": "int"},
                {"name": "amount", "type": {**AMOUNT, "scale": 4}},
                {"name": "x", "type": "string"},
            ]
        ),
        3: {"type": "record", "name": "Heartbeat", "fields": [{"name": "ts_ms", "type": "long"}]},
        4: {"type": "string"},  # type: ignore[dict-item]
    }
)
MADE = contract({"id": "bigint", "amount": "numeric(12,4)"}, Encoding.AVRO)


def first(number: int) -> bytes:
    """Give a record of schema 1."""
    return REGISTRY.framed(1, batches.change({"id": number, "amount": Decimal("1.25")}))


def second(number: int) -> bytes:
    """Give a record of schema 2."""
    return REGISTRY.framed(2, batches.change({"id": number, "amount": Decimal("-0.0001"), "x": "new"}))


def test_several_schemas_in_one_batch_keep_the_batch_order() -> None:
    found = normalise(raw([first(0), second(1), first(2), None, second(4)]), MADE, REGISTRY, 1)
    table = found.changes.table
    assert table["id"].to_pylist() == [0, 1, 2, 4]
    assert table["_schema_id"].to_pylist() == [1, 2, 1, 2]
    assert table["amount"].to_pylist() == [Decimal(v) for v in ("1.25", "-0.0001", "1.25", "-0.0001")]


@pytest.mark.parametrize("policy", list(UnknownFields))
def test_fields_the_contract_does_not_know(policy: UnknownFields) -> None:
    made = contract({"id": "bigint", "amount": "numeric(12,4)"}, Encoding.AVRO, unknown_fields=policy)
    found = normalise(raw([first(0), second(1)]), made, REGISTRY, 1)
    extra = '{"x":"new"}' if policy in (UnknownFields.KEEP, UnknownFields.ADD) else None
    kept = [None] if policy is UnknownFields.QUARANTINE else [None, extra]
    assert found.changes.table["_extra"].to_pylist() == kept


def test_what_is_no_avro_of_ours_is_refused_with_its_reason() -> None:
    values = [b"", b"\0", b"\1\0\0\0\1", b"\0\0\0\0\x63", b"\0\0\0\0\4\0", b"\0\0\0\0\1", first(6) + b"\0", first(7)]
    found = normalise(raw(values), MADE, REGISTRY, 1)
    (rejects,) = found.rejects
    assert rejects.row.to_pylist() == [0, 1, 2, 3, 4, 5, 6]
    assert [r[0] for r in rejects.rules.to_pylist()] == [
        *["undecodable"] * 3, "unknown_schema", "unusable_schema", *["undecodable"] * 2
    ]  # fmt: skip
    assert found.changes.table["id"].to_pylist() == [7]


def test_a_datum_that_swallows_its_neighbour_is_found() -> None:
    # The text field of record 1 claims bytes up to the end of record 2: a plain concatenation would read on in step.
    schema = {
        "type": "record",
        "name": "R",
        "fields": [{"name": "id", "type": "long"}, {"name": "s", "type": "string"}],
    }
    registry = Registry({1: schema})
    made = contract({"id": "bigint", "s": "text"}, Encoding.AVRO, Envelope.PLAIN)
    good = registry.framed(1, {"id": 1, "s": "abc"})
    greedy = good[:-4] + bytes([2 * (3 + len(good))]) + b"abc"
    found = normalise(raw([good, greedy, good, good]), made, registry, 1)
    assert found.kinds.to_pylist() == ["data", "rejected", "data", "data"]


def test_bytes_left_over_do_not_hang_the_reader() -> None:
    found = normalise(raw([first(0), first(1) + first(2), first(3)]), MADE, REGISTRY, 1)
    assert found.kinds.to_pylist() == ["data", "rejected", "data"]


def test_one_poison_record_in_ten_thousand_is_found_by_splitting() -> None:
    values = [first(n) for n in range(200)] * 50
    values[7_777] = values[7_777][:-30]
    found = normalise(raw(values), MADE, REGISTRY, 1)
    assert found.rejects[0].row.to_pylist() == [7_777]
    assert 1 <= found.fallbacks <= 5


def test_a_registry_that_is_down_stops_the_batch_and_refuses_nothing() -> None:
    def down(schema_id: int) -> str:
        raise RegistryUnavailable

    with pytest.raises(RegistryUnavailable):
        normalise(raw([first(0)]), MADE, down, 1)


def test_heartbeats_are_known_by_their_schema() -> None:
    found = normalise(raw([first(0), REGISTRY.framed(3, {"ts_ms": 1})]), MADE, REGISTRY, 1)
    assert found.kinds.to_pylist() == ["data", "heartbeat"]


PLAIN: dict[str, Any] = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "price", "type": AMOUNT},
        {"name": "any", "type": AMOUNT},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}]},
        {"name": "tod", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["A", "B"]}},
        {"name": "uid", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "nums", "type": {"type": "array", "items": AMOUNT}},
        {"name": "meta", "type": {"type": "map", "values": "string"}},
        {"name": "raw", "type": {"type": "fixed", "name": "Two", "size": 2}},
        {"name": "ratio", "type": "float"},
    ],
}
COLUMNS = {
    "id": "bigint", "price": "numeric(12,2)", "any": "numeric", "at": "timestamptz", "day": "date", "tod": "time",
    "state": "enum", "uid": "uuid", "nums": "numeric(12,2)[]", "meta": "hstore", "raw": "bytea",
    "ratio": "double precision",
}  # fmt: skip
UID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"


def test_a_plain_event_with_logical_types() -> None:
    record = {
        "id": 1,
        "price": Decimal("12.50"),
        "any": Decimal("-0.07"),
        "at": dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        "day": dt.date(2024, 2, 29),
        "tod": dt.time(23, 59, 59, 500_000),
        "state": "B",
        "uid": UID,
        "nums": [Decimal("1.10"), Decimal("-3.30")],
        "meta": {"k": "v"},
        "raw": b"\x01\x02",
        "ratio": 0.5,
    }
    registry = Registry({9: PLAIN})
    made = contract(COLUMNS, Encoding.AVRO, Envelope.PLAIN)
    found = normalise(raw([registry.framed(9, record)] * 2), made, registry, 1)
    assert not found.rejects
    row = found.changes.table.to_pylist()[1]
    meta = {"any": "-0.07", "tod": "23:59:59.5", "meta": '{"k":"v"}'}
    assert {n: row[n] for n in COLUMNS} == {**record, **meta}
    assert (row["_op"], row["_position_minor"], row["_schema_id"]) == ("e", 1, 9)


def test_a_schema_the_vectorised_reader_does_not_take_is_read_record_by_record() -> None:
    node = {
        "type": "record",
        "name": "Node",
        "fields": [{"name": "id", "type": "long"}, {"name": "next", "type": ["null", "Node"]}],
    }
    registry = Registry({1: node})
    made = contract({"id": "bigint"}, Encoding.AVRO, Envelope.PLAIN)
    values = [registry.framed(1, {"id": n, "next": {"id": 5, "next": None}}) for n in range(3)]
    values[1] = values[1][:-1]
    found = normalise(raw(values), made, registry, 1)
    assert found.kinds.to_pylist() == ["data", "rejected", "data"]
    assert found.changes.table["id"].to_pylist() == [0, 2]


def test_names_are_found_as_avro_adjusts_them() -> None:
    schema = {
        "type": "record",
        "name": "R",
        "fields": [{"name": "Prix__", "type": "long"}, {"name": "_1x_y", "type": "long"}],
    }
    registry = Registry({1: schema})
    made = contract({"Prix €": "bigint", "1x-y": "bigint"}, Encoding.AVRO, Envelope.PLAIN)
    found = normalise(raw([registry.framed(1, {"Prix__": 7, "_1x_y": 8})]), made, registry, 1)
    assert found.changes.table.select(["Prix €", "1x-y"]).to_pylist() == [{"Prix €": 7, "1x-y": 8}]


def test_the_markers_leave_the_given_batch_as_it_was() -> None:
    import pyarrow as pa

    values = pa.array([first(0), first(1)], pa.binary())
    before = values.to_pylist()
    read = Reader(json.loads(REGISTRY(1)), ("op",)).read(values)
    assert read is not None
    assert read.num_rows == 2
    assert values.to_pylist() == before
    assert HEADER == 5

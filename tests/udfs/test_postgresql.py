"""How PostgreSQL's text becomes stored values: exactly, and null where the stored type holds no such value."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from contracts.model import Contract, Encoding, Envelope, Field, Unrepresentable
from contracts.types import STORED, parse_type
from udfs.postgresql import asked, refused, selected, stored


def read(declared: str, *texts: Any, arrow: pa.DataType | None = None) -> list[Any]:
    kind = parse_type(declared)
    given = pa.array(texts, arrow or asked(kind).arrow)
    values = stored(given, Field("c", "c", kind))
    assert values.type == kind.arrow
    values.validate(full=True)
    return values.to_pylist()  # type: ignore[no-any-return]


def test_binary_values_are_read_from_hexadecimal() -> None:
    assert read("bytea", "00ff", None, "", "10") == [b"\x00\xff", None, b"", b"\x10"]


def test_hstore_becomes_json_with_its_names_in_order() -> None:
    text = r'"b c"=>NULL, "a"=>"1", "q\"\\"=>"x, \"y\"=>", "é"=>""'
    (found,) = read("hstore", text)
    assert json.loads(found) == {"a": "1", "b c": None, 'q"\\': 'x, "y"=>', "é": ""}
    assert list(json.loads(found)) == sorted(json.loads(found))
    assert read("hstore", "", None) == ["{}", None]


def test_moments_are_in_utc_and_points_are_pairs() -> None:
    moment = dt.datetime(2024, 2, 29, 10, 34, 56, 789012)
    assert read("timestamptz", moment, None) == [moment.replace(tzinfo=dt.UTC), None]
    assert read("point", "1.5,-2", None) == [{"x": 1.5, "y": -2.0}, None]


@pytest.mark.parametrize(
    ("declared", "text", "value"),
    [
        ("text[]", '["a", null, "", "NULL", "b,\\"c\\""]', ["a", None, "", "NULL", 'b,"c"']),
        ("int[]", '["1", null, "-3"]', [1, None, -3]),
        ("boolean[]", '["t", "f", null]', [True, False, None]),
        ("numeric(8,2)[]", '["1.10", null, "-3.30"]', [Decimal("1.10"), None, Decimal("-3.30")]),
        ("date[]", '["2024-02-29"]', [dt.date(2024, 2, 29)]),
        ("timestamptz[]", '["2024-01-01 00:00:00.5"]', [dt.datetime(2024, 1, 1, 0, 0, 0, 500000, dt.UTC)]),
        ("bytea[]", '["00ff", null]', [b"\x00\xff", None]),
        ("double precision[]", '["1.5", "NaN", "-Infinity"]', [1.5, float("nan"), float("-inf")]),
    ],
)
def test_arrays_are_read_element_by_element(declared: str, text: str, value: list[Any]) -> None:
    found = read(declared, None, text, "[]", None)
    # NaN equals itself as text only, and UTC has two names.
    assert repr(found).replace("<UTC>", repr(dt.UTC)) == repr([None, value, [], None])


def test_every_type_can_be_asked_for() -> None:
    for name in STORED:
        for declared in (name, f"{name}[]"):
            kind = parse_type(declared)
            assert '"Weird"' in selected(Field("c", "Weird", kind), '"Weird"')
            assert read(declared, None, None) == [None, None]


def test_a_column_that_the_source_lacks_is_null() -> None:
    assert selected(Field("c", "c", parse_type("int")), None) == "NULL"


def test_what_the_pipeline_refuses_depends_on_the_contract() -> None:
    fields = (Field("n", "n", parse_type("numeric(12,2)")), Field("d", "d", parse_type("date")))
    columns: dict[str, str | None] = {"n": '"n"', "d": '"d"'}

    def condition(policy: Unrepresentable) -> str:
        return refused(
            Contract("s", "1", "f", Encoding.JSON, Envelope.DEBEZIUM, fields, unrepresentable=policy), columns
        )

    assert 'round("n"::numeric, 2)' in condition(Unrepresentable.NULL)
    assert '"d"' not in condition(Unrepresentable.NULL)
    assert '"d"' in condition(Unrepresentable.QUARANTINE)

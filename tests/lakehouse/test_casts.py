"""A cast keeps every value what it is, or names the first one that it cannot."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.casts import Loss, cast_between, converted, verify_partition
from udfs.canonical import canonical_text

LONG = st.integers(-(2**63), 2**63 - 1)


def one(values: list[Any], kind: pa.DataType) -> pa.Table:
    return pa.table({"v": pa.array(values, kind)})


def cast(values: list[Any], kind: pa.DataType, to: pa.DataType) -> list[Any]:
    made = converted(one(values, kind), pa.schema([("v", to)]), canonical_text)
    found: list[Any] = made["v"].to_pylist()
    return found


@given(st.lists(st.none() | LONG, max_size=30), st.integers(0, 38))
def test_an_integer_is_the_same_decimal_or_the_first_that_does_not_fit_is_named(
    values: list[int | None], scale: int
) -> None:
    kind = pa.decimal128(38, scale)
    too_large = [place for place, v in enumerate(values) if v is not None and len(str(abs(v))) + scale > 38 and v]
    if too_large:
        with pytest.raises(Loss) as lost:
            cast(values, pa.int64(), kind)
        assert (lost.value.column, lost.value.row) == ("v", too_large[0])
    else:
        assert cast(values, pa.int64(), kind) == values


@given(st.lists(st.none() | st.decimals(-(10**9), 10**9, places=4), max_size=30), st.integers(0, 8))
def test_a_decimal_of_another_scale_is_the_same_number(values: list[Decimal | None], scale: int) -> None:
    lost = [place for place, v in enumerate(values) if v is not None and v != round(v, scale)]
    if lost:
        with pytest.raises(Loss) as told:
            cast(values, pa.decimal128(38, 4), pa.decimal128(38, scale))
        assert told.value.row == lost[0]
    else:
        assert cast(values, pa.decimal128(38, 4), pa.decimal128(38, scale)) == values


@given(st.lists(st.none() | LONG, max_size=30))
def test_an_integer_is_the_same_float_only_where_floats_hold_it(values: list[int | None]) -> None:
    try:
        made = cast(values, pa.int64(), pa.float64())
    except Loss as loss:
        lost = values[loss.row]
        assert lost is not None and abs(lost) > 2**53
    else:
        assert [None if v is None else int(v) for v in made] == values


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (5, pa.int64(), "5"),
        (Decimal("0.00000001"), pa.decimal128(38, 8), "0.00000001"),
        (Decimal("1.50"), pa.decimal128(38, 2), "1.50"),
        (True, pa.bool_(), "true"),
        (dt.date(2024, 1, 31), pa.date32(), "2024-01-31"),
        (dt.datetime(2024, 1, 31, 12), pa.timestamp("us"), "2024-01-31T12:00:00.000000"),
        (b"\xff", pa.binary(), "ff"),
    ],
)
def test_text_is_the_canonical_one(value: Any, kind: pa.DataType, text: str) -> None:
    assert cast([value, None], kind, pa.string()) == [text, None]


@pytest.mark.parametrize(
    ("kind", "to"),
    [
        (pa.string(), pa.int64()),
        (pa.float64(), pa.float32()),
        (pa.float64(), pa.decimal128(38, 2)),
        (pa.decimal128(38, 2), pa.float64()),
        (pa.float64(), pa.int64()),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.timestamp("us"), pa.date32()),
        (pa.date32(), pa.timestamp("us", "UTC")),
        (pa.bool_(), pa.int64()),
        (pa.list_(pa.int64()), pa.list_(pa.string())),
    ],
)
def test_there_is_no_cast_that_would_have_to_guess(kind: pa.DataType, to: pa.DataType) -> None:
    assert cast_between(kind, to, canonical_text) is None


def test_new_columns_are_null_and_left_out_ones_are_gone() -> None:
    made = converted(one([1], pa.int64()), pa.schema([("w", pa.string())]), canonical_text)
    assert made.to_pydict() == {"w": [None]}


@pytest.mark.parametrize(
    ("values", "kind", "row"),
    [(["a", None, ""], pa.string(), 2), ([b"\xff"], pa.binary(), 0), ([1, None], pa.int64(), None)],
)
def test_a_partition_value_that_the_log_cannot_say_is_named(
    values: list[Any], kind: pa.DataType, row: int | None
) -> None:
    if row is None:
        verify_partition(one(values, kind), ["v"])
        return
    with pytest.raises(Loss) as lost:
        verify_partition(one(values, kind), ["v"])
    assert lost.value.row == row

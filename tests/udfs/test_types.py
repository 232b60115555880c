"""Each type's values against Python's own arithmetic, and the tables that must stay complete."""

from __future__ import annotations

import base64
import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.types import STORED, parse_type
from udfs import base64s, decimals, placeholders, position, slices, times
from udfs.converted import Converted
from udfs.wire import WIRE

UTC = pa.timestamp("us", tz="UTC")


def two_complement(value: int) -> bytes:
    """Give a number as Java's BigInteger writes it."""
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def wrong(converted: Converted, length: int) -> list[bool]:
    """Give the refused places."""
    return [False] * length if converted.wrong is None else list(map(bool, converted.wrong))


def test_every_stored_type_has_a_wire_form() -> None:
    assert WIRE.keys() == STORED.keys()


@given(st.lists(st.one_of(st.none(), st.binary(max_size=40)), max_size=20))
def test_base64_gives_the_bytes_back(values: list[bytes | None]) -> None:
    text = pa.array([None if v is None else base64.b64encode(v).decode() for v in values], pa.string())
    decoded, bad = base64s.decode(text)
    assert decoded.to_pylist() == values
    assert bad is None


@given(st.lists(st.text(alphabet="AQ=+/é \n", max_size=8), min_size=1, max_size=20))
def test_base64_refuses_what_python_refuses(values: list[str]) -> None:
    decoded, bad = base64s.decode(pa.array(values, pa.string()))
    refused = [False] * len(values) if bad is None else bad.tolist()
    for value, found, is_bad in zip(values, decoded.to_pylist(), refused, strict=True):
        try:
            # Python takes padding after a whole group, which belongs to nothing; Debezium never writes it.
            stray = len(value) % 4 or value.endswith("====")
            expected = None if stray else base64.b64decode(value, validate=True)
        except ValueError:
            expected = None
        assert is_bad == (expected is None)
        assert found == expected


@pytest.mark.parametrize("value", ["====", "AAAA====", "AAAA=", "A===", "AA=A"])
def test_padding_that_belongs_to_nothing_is_refused(value: str) -> None:
    decoded, bad = base64s.decode(pa.array(["AAAA", value], pa.string()))
    assert bad is not None and bad.tolist() == [False, True]
    assert decoded.to_pylist() == [b"\0\0\0", None]


@given(st.lists(st.one_of(st.none(), st.integers(-(10**38) + 1, 10**38 - 1)), max_size=20), st.integers(0, 12))
def test_decimals_are_exact(values: list[int | None], scale: int) -> None:
    unscaled = pa.array([None if v is None else two_complement(v) for v in values], pa.binary())
    found = decimals.from_bytes(unscaled, scale, pa.decimal128(38, scale))
    assert found.wrong is None
    assert [None if v is None else int(v.scaleb(scale, _wide())) for v in found.values.to_pylist()] == values


@given(st.lists(st.integers(-(2**140), 2**140), min_size=1, max_size=10))
def test_more_than_38_digits_are_refused(values: list[int]) -> None:
    unscaled = pa.array([two_complement(v) for v in values], pa.binary())
    found = decimals.from_bytes(unscaled, 0, pa.decimal128(38, 0))
    assert wrong(found, len(values)) == [abs(v) >= 10**38 for v in values]


@given(st.lists(st.tuples(st.integers(-(10**50), 10**50), st.integers(-5, 40)), min_size=1, max_size=10))
def test_numeric_without_a_precision_is_exact_text(values: list[tuple[int, int]]) -> None:
    unscaled = pa.array([two_complement(v) for v, _ in values], pa.binary())
    found = decimals.text(unscaled, np.array([s for _, s in values], np.int64)).values.to_pylist()
    for text, (value, scale) in zip(found, values, strict=True):
        assert "E" not in text
        assert Decimal(text) == Decimal(value).scaleb(-scale, _wide())


def _wide() -> object:
    from decimal import Context

    return Context(prec=200)


@given(st.lists(st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59)), min_size=1, max_size=10))
def test_timestamps_of_all_stored_years_arrive_as_text_and_as_numbers(values: list[dt.datetime]) -> None:
    text = pa.array([v.isoformat(timespec="microseconds") + "Z" for v in values])
    assert times.timestamp_from_text(text, UTC).values.to_pylist() == [v.replace(tzinfo=dt.UTC) for v in values]
    micros = pa.array([(v - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1) for v in values], pa.int64())
    assert times.timestamp_from_number(micros, "us", pa.timestamp("us")).values.to_pylist() == values


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=10), st.sampled_from(["s", "ms", "us", "ns"]))
def test_any_number_is_a_timestamp_or_is_flagged(values: list[int], unit: str) -> None:
    found = times.timestamp_from_number(pa.array(values, pa.int64()), unit, UTC)
    flags = [None] * len(values) if found.flags is None else found.flags.to_pylist()
    for moment, flag in zip(found.values.to_pylist(), flags, strict=True):
        assert (moment is None) == (flag in ("infinity", "out_of_range"))


@pytest.mark.parametrize(
    ("text", "flag", "bad"),
    [
        ("infinity", "infinity", False),
        ("-infinity", "infinity", False),
        ("-0043-03-15T00:00:00.000000Z", "out_of_range", False),
        ("+12024-01-01T00:00:00Z", "out_of_range", False),
        ("12024-01-01T00:00:00Z", "out_of_range", False),
        ("0001-01-01T00:00:00+10:00", "out_of_range", False),
        ("yesterday", None, True),
        ("2024-02-30T00:00:00Z", None, True),
        ("", None, True),
    ],
)
def test_a_text_that_is_no_storable_moment(text: str, flag: str | None, bad: bool) -> None:
    found = times.timestamp_from_text(pa.array(["2024-01-01T00:00:00Z", text]), UTC)
    assert found.values.is_valid().to_pylist() == [True, False]
    assert (None if found.flags is None else found.flags[1].as_py()) == flag
    assert wrong(found, 2) == [False, bad]


def test_a_time_of_day_is_iso_text() -> None:
    micros = pa.array([0, 86_399_999_999, 86_400_000_000, 100_000, None, -1, 86_400_000_001, 2**63 - 1], pa.int64())
    found = times.time_from_number(micros, "us")
    assert found.values.to_pylist() == ["00:00:00", "23:59:59.999999", "24:00:00", "00:00:00.1", *[None] * 4]
    assert wrong(found, 8) == [False] * 5 + [True] * 3


@pytest.mark.parametrize(
    ("declared", "value", "base64_text"),
    [
        ("text", placeholders.PLACEHOLDER, False),
        ("bytea", placeholders.BASE64, True),
        ("bytea", placeholders.PLACEHOLDER.encode(), False),
        ("hstore", placeholders.IN_MAP[0], False),
        ("hstore", placeholders.PLACEHOLDER, False),
        ("text[]", [placeholders.PLACEHOLDER], False),
        ("int[]", placeholders.CODES, False),
        ("numeric(8,2)[]", [placeholders.BASE64], True),
    ],
)
def test_the_placeholder_is_known_in_each_of_its_shapes(declared: str, value: object, base64_text: bool) -> None:
    values = pa.array([None, value, value])
    found = placeholders.unset(values, parse_type(declared), base64_text)
    assert found is not None
    assert found.tolist() == [False, True, True]


def test_a_type_that_is_never_left_out_has_no_placeholder() -> None:
    assert placeholders.unset(pa.array([placeholders.PLACEHOLDER]), parse_type("uuid"), False) is None


@given(st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 10**18)), st.integers(0, 10**18)), max_size=8))
def test_positions_are_the_pair_in_the_sequence(pairs: list[tuple[int | None, int]]) -> None:
    text = [f'[{"null" if a is None else chr(34) + str(a) + chr(34)},"{b}"]' for a, b in pairs]
    source = {"sequence": pa.array(text, pa.string()), "lsn": pa.nulls(len(pairs), pa.int64())}
    found = position.of_postgresql(source)
    assert list(zip(found.major.to_pylist(), found.minor.to_pylist(), strict=True)) == pairs


def test_a_position_without_a_sequence_is_the_lsn() -> None:
    source = {"sequence": pa.array(["x", None, '["9999999999999999999","1"]']), "lsn": pa.array([1, 2, 3])}
    found = position.of_postgresql(source)
    assert found.major.to_pylist() == [None, None, None]
    assert found.minor.to_pylist() == [1, 2, 1]


def test_byte_ranges_are_cut_without_a_loop() -> None:
    values = pa.array([b"head-one", b"head-", b"head-three!"], pa.binary()).slice(0, 3)
    assert slices.inner(values, 5).to_pylist() == [b"one", b"", b"three!"]
    assert slices.inner(values.slice(2), 5, 1).to_pylist() == [b"three"]

"""Data files: every type that contracts store, partitions of any value, statistics only where allowed."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.types import STORED
from lakehouse.lake import Lake
from lakehouse.merge.merge_table import MergeTable
from lakehouse.merge.statistics import loosened, stats_of
from lakehouse.read import connect
from tests.lakehouse.merge.tables import NOTHING, by_deltalake, by_duckdb, by_location, log_of, merge_table, state

DECIMAL = pa.decimal128(38, 2)
KINDS: dict[str, pa.DataType] = {str(kind): kind for kind in STORED.values()}
KINDS |= {"list": pa.list_(pa.string()), "list of timestamps": pa.list_(pa.timestamp("us")), "int32": pa.int32()}
KINDS |= {"decimal(38,0)": pa.decimal128(38, 0), "decimal(38,38)": pa.decimal128(38, 38)}
UTC = dt.UTC
VALUES: dict[str, list[Any]] = {
    "int64": [0, -1, 2**63 - 1, -(2**63), None],
    "int32": [0, -1, 2**31 - 1, -(2**31), None],
    "float": [0.0, -1.5, 3.0e38, None, 2.0],
    "double": [0.0, -1.5, 1e300, None, 0.1],
    "bool": [True, False, None, True, False],
    "string": ["", "é" * 40, "\U0001f40d" * 40, None, "a\x00b\n\"'\\"],
    "binary": [b"", b"\x00\xff", None, b"abc", b"x" * 100],
    "date32[day]": [dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(1969, 12, 31), None, dt.date(2024, 2, 29)],
    "timestamp[us]": [
        dt.datetime(1, 1, 1), dt.datetime(2024, 1, 2, 3, 4, 5, 123456), None, *[dt.datetime(1969, 1, 1)] * 2],
    "timestamp[us, tz=UTC]": [
        dt.datetime(1, 1, 1, tzinfo=UTC), dt.datetime(2024, 1, 2, 3, 4, 5, 999999, UTC), None,
        dt.datetime(1969, 1, 1, tzinfo=UTC), dt.datetime(2262, 4, 12, tzinfo=UTC)],
    "decimal128(38, 2)": [
        Decimal("9" * 36 + ".99"), Decimal("-" + "9" * 36 + ".99"), Decimal("0.00"), None, Decimal("1.50")],
    "decimal(38,0)": [Decimal("9" * 38), Decimal("-" + "9" * 38), Decimal(0), None, Decimal(1)],
    "decimal(38,38)": [Decimal("0." + "9" * 38), Decimal("-0." + "9" * 38), Decimal(0), None, Decimal("0.5")],
    "struct<x: double, y: double>": [{"x": 1.0, "y": None}, None, {"x": -2.5, "y": 3.0}, {"x": None, "y": None}, None],
    "list": [[], None, ["a", None, "é"], [""], ["x"] * 50],
    "list of timestamps": [[], None, [dt.datetime(2024, 1, 1)], [None], []],
}  # fmt: skip


def table_of(lake: Lake, kind: pa.DataType, statistics: tuple[str, ...] = ("v",), **options: Any) -> MergeTable:
    return merge_table(lake, pa.schema([("id", pa.int64()), ("v", kind)]), statistics=statistics, **options)


def commit(table: MergeTable, values: list[Any]) -> np.ndarray:
    kind = table.columns.field("v").type
    append = pa.table({"id": pa.array(range(len(values)), pa.int64()), "v": pa.array(values, kind)})
    return table.commit(append, NOTHING, {}, state())


def test_every_stored_type_has_values_here() -> None:
    assert KINDS.keys() == VALUES.keys()


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_type_that_a_contract_stores_is_read_back_exactly(local: Lake, name: str) -> None:
    table = table_of(local, KINDS[name])
    at = commit(table, VALUES[name])
    wanted = pa.array(VALUES[name], KINDS[name])
    assert table.rows(at)["v"].combine_chunks().equals(wanted)
    table.commit(pa.table({}), at[:1], {}, state())
    assert len(by_deltalake(local, "id, v")) == len(by_duckdb(local, "id, v")) == 4
    assert by_deltalake(local, "id, v") == [(i, wanted[i].as_py()) for i in range(1, 5)]
    found = connect(local).execute("SELECT id, v FROM t ORDER BY id").arrow().read_all()
    assert found["v"].to_pylist() == wanted[1:].to_pylist()


# SQL literals, each beside the value that it means: one file each, all of which a reader's pruning must keep.
FILTERED: dict[str, list[tuple[str, Any]]] = {
    "int64": [(f"CAST('{n}' AS BIGINT)", n) for n in (-(2**63), -1, 0, 2**63 - 1)],
    "double": [(repr(x), x) for x in (-1.5, 0.1, 1e300)],
    "float": [(f"CAST({x} AS REAL)", x) for x in (-1.5, 0.25, 2.0**100)],
    "string": [(f"'{text}'", text) for text in ("é" * 40, "é" * 41, "\U0001f40d" * 40, "a", "z" * 32)],
    "date32[day]": [
        (f"DATE '{day}'", dt.date.fromisoformat(day)) for day in ("0001-01-01", "1969-12-31", "9999-12-31")
    ],
    "timestamp[us]": [
        (f"TIMESTAMP '{text}'", dt.datetime.fromisoformat(text))
        for text in ("1969-01-01 00:00:00.000001", "2024-01-02 03:04:05.999999", "2024-01-02 03:04:05.123")
    ],
    "timestamp[us, tz=UTC]": [
        (f"TIMESTAMPTZ '{text}+00:00'", dt.datetime.fromisoformat(text).replace(tzinfo=UTC))
        for text in ("1969-01-01 00:00:00.000001", "2024-01-02 03:04:05.999999", "2024-01-02 03:04:05.123")
    ],
    "decimal128(38, 2)": [
        (f"CAST('{text}' AS DECIMAL(38, 2))", Decimal(text))
        for text in ("9" * 36 + ".99", "-" + "9" * 36 + ".99", "1.50")
    ],
    "decimal(38,0)": [(f"CAST('{text}' AS DECIMAL(38, 0))", Decimal(text)) for text in ("9" * 38, "9" * 37 + "8", "1")],
}


@pytest.mark.parametrize("name", FILTERED)
def test_statistics_never_hide_a_row_from_a_filter(local: Lake, name: str) -> None:
    table = table_of(local, KINDS[name])
    for _, value in FILTERED[name]:
        commit(table, [value])
    duck, delta = connect(local), QueryBuilder().register("t", DeltaTable(local.table_uri("t")))
    for literal, value in FILTERED[name]:
        query = f"SELECT v FROM t WHERE v = {literal}"
        for found in (duck.execute(query).arrow().read_all(), pa.table(delta.execute(query).read_all())):
            assert found["v"].to_pylist() == [value], literal


PARTITIONS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "text": (
        pa.string(),
        ["a b/ü=:%?'\"\\#&+", None, "..", "é" * 200, "%20", "a", "A", "\n\t", "{}[]^~`|<>*", "_x", " "],
    ),
    "integer": (pa.int64(), [0, -5, None, 2**63 - 1]),
    "date": (pa.date32(), [dt.date(2024, 2, 29), None, dt.date(1, 1, 1)]),
    "boolean": (pa.bool_(), [True, False, None]),
    "decimal": (DECIMAL, [Decimal("-1.50"), Decimal("9" * 36 + ".99"), None]),
    "timestamp": (pa.timestamp("us"), [dt.datetime(2024, 1, 2, 3, 4, 5, 123456), dt.datetime(1969, 1, 1), None]),
    "timestamptz": (pa.timestamp("us", tz="UTC"), [dt.datetime(2024, 1, 2, 3, 4, 5, 123456, UTC), None]),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTITIONS)
def test_partition_values_of_any_kind_are_read_back(local: Lake, name: str) -> None:
    kind, values = PARTITIONS[name]
    table = table_of(local, kind, (), partition_by=("v",))
    found = commit(table, values * 2)
    assert len(table.files()) == len(values)
    assert table.rows(found)["v"].to_pylist() == values * 2
    table.commit(pa.table({}), found[: len(values)], {}, state())
    wanted = {i + len(values): value for i, value in enumerate(values)}
    for read in (by_deltalake, by_duckdb, lambda lake, columns: by_location(table, columns.split(", "))):
        assert dict(read(local, "id, v")) == wanted
    fresh = table_of(local, kind, (), partition_by=("v",))
    assert dict(by_location(fresh, ["id", "v"])) == wanted


def test_an_empty_text_is_null_as_a_partition_value(local: Lake) -> None:
    table = table_of(local, pa.string(), (), partition_by=("v",))
    commit(table, ["", None])
    assert len(table.files()) == 1
    assert by_deltalake(local, "id, v") == by_duckdb(local, "id, v") == [(0, None), (1, None)]


def test_several_partition_columns_make_nested_folders(lake: Lake) -> None:
    columns = pa.schema([("id", pa.int64()), ("a", pa.string()), ("b", pa.date32())])
    table = merge_table(lake, columns, ("a", "b"))
    values = [(i, "xy%z"[i % 3], dt.date(2024, 1, 1 + i % 2)) for i in range(12)]
    append = pa.table([pa.array(column) for column in zip(*values, strict=True)], names=["id", "a", "b"])
    found = table.commit(append, NOTHING, {}, state())
    assert len(table.files()) == 6
    table.commit(pa.table({}), found[:3], {}, state())
    assert by_deltalake(lake, "id, a, b") == by_duckdb(lake, "id, a, b") == sorted(values[3:], key=str)
    assert any(file.path.startswith("a=%25/b=2024-01-01/") or "a=x/" in file.path for file in table.files().values())


def test_the_log_holds_values_of_the_named_columns_only(local: Lake) -> None:
    columns = pa.schema([("id", pa.int64()), ("secret", pa.string())])
    table = merge_table(local, columns, statistics=("id",))
    found = table.commit(pa.table({"id": [1, 2], "secret": ["alice", "bob"]}), NOTHING, {}, state())
    table.commit(pa.table({}), found[:1], {}, state())
    for version in range(3):
        said = local.get(f"t/_delta_log/{version:020}.json")
        assert said is not None and b"alice" not in said and b"bob" not in said
    assert log_of(local, 2)[2]["add"]["stats"] == (
        '{"tightBounds":false,"numRecords":2,"minValues":{"id":1},"maxValues":{"id":2},"nullCount":{"id":0}}'
    )


def test_statistics_have_the_protocols_forms() -> None:
    rows = pa.table(
        {
            "d": pa.array([Decimal("12345678901234567890.10"), None], DECIMAL),
            "t": pa.array([dt.datetime(2024, 1, 1, 0, 0, 0, 123456)] * 2, pa.timestamp("us", tz="UTC")),
            "n": pa.array([dt.datetime(1969, 1, 1, 0, 0, 0, 1)] * 2, pa.timestamp("us")),
            "day": pa.array([dt.date(2024, 1, 1), dt.date(2023, 1, 1)]),
            "s": pa.array(["a" * 40, "b" * 32]),
            "b": pa.array([True, False]),
            "e": pa.array([None, None], pa.int64()),
            "f": pa.array([1.0, math.nan]),
            "g": pa.array([1.0, math.inf]),
        }
    )
    assert stats_of(rows, rows.column_names) == (
        '{"numRecords":2,"minValues":{"d":12345678901234567890.10,"t":"2024-01-01T00:00:00.123Z",'
        '"n":"1969-01-01T00:00:00.000","day":"2023-01-01","s":"' + "a" * 32 + '"},'
        '"maxValues":{"d":12345678901234567890.10,"t":"2024-01-01T00:00:00.124Z","n":"1969-01-01T00:00:00.001",'
        '"day":"2024-01-01","s":"' + "b" * 32 + '"},'
        '"nullCount":{"d":1,"t":0,"n":0,"day":0,"s":0,"b":0,"e":2,"f":0,"g":0}}'
    )


def test_values_beyond_what_dates_reach_have_no_bounds() -> None:
    rows = pa.table({"day": pa.array([5_000_000], pa.int32()).cast(pa.date32())})
    assert stats_of(rows, ["day"]) == '{"numRecords":1,"minValues":{},"maxValues":{},"nullCount":{"day":0}}'


@settings(max_examples=200)
@given(st.lists(st.text(max_size=45), min_size=1))
def test_bounds_of_texts_enclose_every_text_in_any_byte_order(texts: list[str]) -> None:
    import orjson

    said = orjson.loads(stats_of(pa.table({"s": pa.array(texts)}), ["s"]))
    low, high = said["minValues"]["s"].encode(), said["maxValues"].get("s")
    assert all(low <= text.encode() and (high is None or text.encode() <= high.encode()) for text in texts)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, '{"tightBounds":false,"numRecords":7}'),
        ("{}", '{"tightBounds":false,"numRecords":7}'),
        ('{"minValues":{"d":1.10}}', '{"tightBounds":false,"numRecords":7,"minValues":{"d":1.10}}'),
        ('{"numRecords":7,"tightBounds":true}', '{"numRecords":7,"tightBounds":false}'),
        ('{"tightBounds":false,"numRecords":7}', '{"tightBounds":false,"numRecords":7}'),
        ('{"numRecords":7,"tightBounds" : false}', '{"numRecords":7,"tightBounds" : false}'),
    ],
)
def test_statistics_of_a_file_with_a_vector_keep_their_digits(before: str | None, after: str) -> None:
    assert loosened(before, 7) == after

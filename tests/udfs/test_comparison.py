"""Two tables compared by key: what differs is found and named, in whatever order and batches the rows come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udfs import comparison
from udfs.comparison import WAITING, Comparison, Read, compare

WORDS = pa.list_(pa.string())
SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.string()), ("x", pa.float64()), ("l", WORDS), (WAITING, WORDS)])
Row = tuple[Any, ...]


def side(*batches: Sequence[Row]) -> Read:
    def read() -> Iterator[pa.Table]:
        for rows in batches:
            whole = [dict(zip(SCHEMA.names, (*row, None)[: len(SCHEMA)], strict=True)) for row in rows]
            yield pa.Table.from_pylist(whole, schema=SCHEMA)

    return read


def row(a: int, b: str = "", x: float | None = None, words: list[str | None] | None = None) -> Row:
    return (a, b, x, words)


def waits(made: Row, *why: str) -> Row:
    return (*made, list(why or ["stale"]))


def compared(source: Read, table: Read, first: int = 20) -> Comparison:
    return compare(source, table, ["a", "b"], ["a", "b", "x", "l"], first)


def told(found: Comparison) -> list[tuple[int, str, tuple[str, ...]]]:
    return [(d.key["a"], d.what, d.columns) for d in found.differences]


ROWS = st.lists(
    st.builds(
        row, st.integers(0, 5), st.sampled_from("xy"), st.sampled_from([None, 0.5, float("nan")]),
        st.sampled_from([None, [], [None], ["v"]]),
    ),
    unique_by=lambda r: r[:2],
)  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(ROWS, ROWS, st.integers(0, 6))
def test_tables_are_equal_exactly_when_their_rows_are(source: list[Row], table: list[Row], cut: int) -> None:
    found = compared(side(source), side(table[:cut], table[cut:]))
    by_key = [{r[:2]: repr(r[2:]) for r in rows} for rows in (source, table)]
    keys = {k for k in {**by_key[0], **by_key[1]} if by_key[0].get(k) != by_key[1].get(k)}
    assert found.equal == (not keys)
    assert {(d.key["a"], d.key["b"]) for d in found.differences} == keys
    assert found.found == len(keys)


def test_what_is_missing_extra_twice_and_different_is_told_apart() -> None:
    source = [row(1), row(2), row(3, x=1.0, words=["p"]), row(4)]
    table = [row(2), row(3, x=2.0, words=["q"]), row(4), row(4), row(5)]
    found = compared(side(source), side(table))
    assert told(found) == [(1, "missing", ()), (3, "differs", ("x", "l")), (4, "twice", ()), (5, "extra", ())]
    assert (found.source_rows, found.table_rows, found.found, found.complete) == (4, 5, 4, True)
    assert (found.differences[1].source, found.differences[1].table) == ({"x": 1.0, "l": ["p"]}, {"x": 2.0, "l": ["q"]})


def test_columns_are_judged_apart() -> None:
    found = compared(side([row(1, x=1.0, words=["p"])]), side([row(1, x=1.0)]))
    assert found.columns == {"x": True, "l": False}


def test_a_key_that_waits_in_the_table_is_compared_on_neither_side() -> None:
    found = compared(side([row(1, x=1.0), row(2), row(3)]), side([waits(row(1, x=9.0)), row(2), waits(row(7)), row(3)]))
    assert (found.equal, found.waiting_table, found.source_rows, found.table_rows) == (True, 2, 2, 2)


def test_keys_that_wait_are_listed_with_why_on_either_side() -> None:
    source = [row(1), waits(row(2), "refused"), row(3), waits(row(4), "refused")]
    table = [row(1), waits(row(2), "stale"), waits(row(3), "stale", "pending:x", "pending:l")]
    found = compared(side(source), side(table))
    assert [(w.key, w.why) for w in found.waiting] == [
        ({"a": 2, "b": ""}, ("refused", "stale")),
        ({"a": 3, "b": ""}, ("pending:l", "pending:x", "stale")),
        ({"a": 4, "b": ""}, ("refused",)),
    ]
    assert (found.equal, found.waiting_keys, found.waiting_source, found.waiting_table) == (True, 3, 2, 2)


WAITS = st.lists(st.builds(waits, st.builds(row, st.integers(0, 9), st.sampled_from("xy")), st.sampled_from("pqr")))


@settings(deadline=None, max_examples=40)
@given(WAITS, WAITS, st.integers(0, 8), st.integers(0, 8), st.integers(0, 6))
def test_of_the_keys_that_wait_the_first_are_listed_in_whatever_batches_they_come(
    source: list[Row], table: list[Row], cut: int, other: int, first: int
) -> None:
    found = compared(side(source[:cut], source[cut:]), side(table[:other], table[other:]), first)
    why: dict[tuple[int, str], set[str]] = {}
    for made in [*source, *table]:
        why.setdefault(made[:2], set()).update(made[-1])
    assert [((w.key["a"], w.key["b"]), w.why) for w in found.waiting] == [
        (key, tuple(sorted(words))) for key, words in sorted(why.items())[:first]
    ]
    assert (found.equal, found.waiting_keys) == (True, len(why))


def test_a_row_that_the_pipeline_holds_back_must_not_be_in_the_table_unmarked() -> None:
    held = [row(1), waits(row(2, x=1.0))]
    assert compared(side(held), side([row(1)])).equal
    assert compared(side(held), side([row(1), waits(row(2))])).equal
    unmarked = compared(side(held), side([row(1), row(2)]))
    assert told(unmarked) == [(2, "unmarked", ())]
    assert (unmarked.waiting_keys, unmarked.waiting) == (0, [])


@pytest.mark.parametrize("sides", [((), ([row(1)],)), (([row(1)],), ()), (([],), ([row(1)],))])
def test_an_empty_side_is_compared_too(sides: tuple[tuple[Sequence[Row], ...], tuple[Sequence[Row], ...]]) -> None:
    found = compared(side(*sides[0]), side(*sides[1]))
    assert (found.equal, found.found) == (False, 1)
    assert compared(side(), side()).equal


def test_of_very_many_differences_some_are_shown_and_their_number_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "ROWS_LOOKED_AT", 500)
    found = compared(side([row(n, x=1.0) for n in range(20_000)]), side([row(n, x=2.0) for n in range(20_000)]), 7)
    assert len(found.differences) == 7
    assert not found.complete
    assert 7 <= found.found < 5_000
    assert found.source_rows == found.table_rows == 20_000

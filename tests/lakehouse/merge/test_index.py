"""The key index against a dictionary, and keys as numbers: equal for equal keys, different for different ones."""

from __future__ import annotations

import datetime as dt
import decimal
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.merge.index import Entries, KeyIndex
from lakehouse.merge.index_memory import IndexMemory
from lakehouse.merge.keys import Keys, keys_of

Place = tuple[int, int]


def numbered(values: list[int], hashed: bool) -> Keys:
    low = np.array(values, np.int64)
    # Several keys share the first half of their numbers, as two hashes may.
    return Keys(low // 3, low * 7) if hashed else Keys(low, None)


@given(st.integers(0, 10**9), st.booleans(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_index_gives_what_a_dictionary_gives(seed: int, versions: bool, hashed: bool) -> None:
    source = random.Random(seed)
    memory = IndexMemory(source.choice([0, 2_000, 10**9]), small=source.choice([1, 200]))
    index, held = KeyIndex(versions=versions, memory=memory), dict[int, dict[Place, int]]()
    for _ in range(source.randint(0, 12)):
        count = source.choice([0, 1, 3, 30])
        put: dict[tuple[int, Place], int] = {}
        for _ in range(count):
            place = (source.randint(0, 3), source.randint(0, 3))
            put[source.randint(0, 20), place] = source.randint(0, 10**6)
        if not versions:
            put = {(key, place): at for key, (place, at) in {k: (p, at) for (k, p), at in put.items()}.items()}
        keys = [key for key, _ in put]
        columns = ([p[0] for _, p in put], [p[1] for _, p in put], list(put.values()))
        index.put(Entries(numbered(keys, hashed), *(np.array(c, np.int64) for c in columns)))
        for (key, place), location in put.items():
            held[key] = {**(held.get(key, {}) if versions else {}), place: location}
    asked = list(range(22))
    assert found(index.last(numbered(asked, hashed))) == top(held)
    if versions:
        assert found(index.find(numbered(asked, hashed))) == everything(held)
    below = index.below(2, 0)
    got = zip(below.major.tolist(), below.minor.tolist(), below.location.tolist(), strict=True)
    assert {((one, two), at) for one, two, at in got} == {(p, at) for _, p, at in everything(held) if p < (2, 0)}


@given(st.integers(0, 10**9), st.booleans(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_rows_that_moved_are_found_where_they_are_and_keep_their_flags(seed: int, versions: bool, hashed: bool) -> None:
    source, flag = random.Random(seed), 1 << 62
    index, held, free = KeyIndex(versions=versions), dict[int, int](), 0
    for _ in range(source.randint(1, 6)):
        keys = source.sample(range(60), source.randint(1, 30))
        placed = [(free << 32) + row for row in source.sample(range(100), len(keys))]
        flagged = [at | source.choice([0, flag]) for at in placed]
        free += 1
        zeros = np.zeros(len(keys), np.int64)
        index.put(Entries(numbered(keys, hashed), zeros, zeros, np.array(flagged, np.int64)))
        held |= dict(zip(keys, flagged, strict=True))
        moving = source.sample(sorted(held), source.randint(0, len(held)))
        old = np.array([held[key] & ~flag for key in moving], np.int64)
        new = (free << 32) + np.arange(len(moving))
        free += 1
        before = [run.location.copy() for run in index.runs]
        runs = list(index.runs)
        index.move(old, new, flag)
        assert all((run.location == was).all() for run, was in zip(runs, before, strict=True))  # somebody may read them
        held |= {key: int(at) | (held[key] & flag) for key, at in zip(moving, new, strict=True)}
    told = {key: at for key, _, at in found(index.last(numbered(list(range(60)), hashed)))}
    assert told == held


def found(hits: Any) -> set[tuple[int, Place, int]]:
    e = hits.entries
    rows = zip(hits.asked.tolist(), e.major.tolist(), e.minor.tolist(), e.location.tolist(), strict=True)
    return {(key, (one, two), location) for key, one, two, location in rows}


def last(held: dict[int, dict[Place, int]]) -> dict[int, dict[Place, int]]:
    return {key: {max(places): places[max(places)]} for key, places in held.items()}


def top(held: dict[int, dict[Place, int]]) -> set[tuple[int, Place, int]]:
    return everything(last(held))


def everything(held: dict[int, dict[Place, int]]) -> set[tuple[int, Place, int]]:
    return {(key, place, at) for key, places in held.items() for place, at in places.items()}


KINDS: list[tuple[pa.DataType, list[Any]]] = [
    (pa.string(), ["", "a", "b", "ab", "\x00", "é", "☃" * 40]),
    (pa.binary(), [b"", b"\x00", b"\x00\x00", b"ab"]),
    (pa.int64(), [0, 1, -1, 2**62, -(2**62)]),
    (pa.decimal128(38, 4), [decimal.Decimal(v) for v in ("0", "1.0001", "-1.0001", "1" * 30)]),
    (pa.date32(), [dt.date(1970, 1, 1), dt.date(2024, 2, 29), dt.date(1, 1, 1)]),
    (pa.timestamp("us", "UTC"), [dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(1960, 1, 1, 1, tzinfo=dt.UTC)]),
    (pa.bool_(), [True, False]),
    (pa.float64(), [0.0, 1.5, float("inf"), float("nan"), -1e300]),
    (pa.list_(pa.int64()), [[], [1], [1, 2], [12]]),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind[0]))
def test_equal_keys_are_equal_numbers_and_others_are_not(kind: tuple[pa.DataType, list[Any]]) -> None:
    values = pa.array(kind[1] * 2, kind[0])
    group, _ = keys_of([values]).groups()
    assert group[: len(kind[1])].tolist() == group[len(kind[1]) :].tolist()
    assert len(set(group.tolist())) == len(kind[1])
    twice, _ = keys_of([values, values]).groups()
    assert len(set(twice.tolist())) == len(kind[1])


def test_a_key_of_two_columns_is_not_their_texts_joined() -> None:
    one, two = pa.array(["ab", "a", "", "abc"]), pa.array(["c", "bc", "abc", ""])
    assert len(set(keys_of([one, two]).groups()[0].tolist())) == 4
    assert len(set(keys_of([pa.array([1, 2]), pa.array([2, 1])]).groups()[0].tolist())) == 2


def test_minus_zero_is_the_key_zero() -> None:
    assert set(keys_of([pa.array([0.0, -0.0]), pa.array([1, 1])]).groups()[0].tolist()) == {0}


def test_numbers_stay_the_same_for_good() -> None:
    """Indexes are kept: another number for the same key would make rows unfindable until an index is rebuilt."""
    keys = keys_of([pa.array(["a", "é"]), pa.array([1, -2])])
    assert keys.check is not None
    assert (keys.low.tolist(), keys.check.tolist()) == (LOW, CHECK)


LOW = [-5755733082451018150, -7231024910709597650]
CHECK = [-8583976178112783310, 7775325268801711448]

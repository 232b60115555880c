"""Segments give back what was put in, and go when no stream needs them, never by age alone."""

from __future__ import annotations

import time
from datetime import timedelta

import obstore
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.columns import OTHERS, QUARANTINE, WITHHELD_META, refined_schema
from lakehouse.batches import SectionCache, counts_of, load
from lakehouse.errors import SegmentMissing
from lakehouse.lake import Lake
from lakehouse.plan import plan
from lakehouse.segments import FOLDER, Range, Section, SectionRef, collect_garbage, read_section
from tests.lakehouse.rows import (
    CONTRACT,
    NOW,
    TOPIC,
    contract,
    no_gaps,
    other,
    reject,
    row,
    section,
    tables,
    withheld,
    write,
)

NO_AGE = timedelta(seconds=-5)


def same(section: Section, read: Section) -> bool:
    names = ("rows", "rejects", "others", "withheld")
    parts = [(getattr(section, name), getattr(read, name)) for name in names]
    return section.ranges == read.ranges and all(a.schema == b.schema and a.equals(b) for a, b in parts)


def test_every_section_of_a_segment_is_read_on_its_own(lake: Lake) -> None:
    users = contract(stream="users")
    sections = [
        section([row(0), row(1, note="é" * 1000)], [reject(2)], [other(3)], withheld=[withheld(2), withheld(3)]),
        section([row(0, topic="users")], of=users),
        section(others=[other(9)]),
    ]
    refs = write(lake, *sections)
    assert [ref.stream for ref in refs] == ["orders", "users", "orders"]
    assert len({ref.path for ref in refs}) == 1
    assert all(same(made, read_section(lake, ref)) for made, ref in zip(sections, refs, strict=True))


texts = st.text(max_size=8)
ranges = st.builds(
    Range, texts, st.integers(0, 900), st.none() | st.integers(0, 2**62), st.integers(0, 2**62), st.integers(0, 2**62),
    st.integers(0, 2**31), st.none() | st.integers(-(2**60), 2**60),
)  # fmt: skip


@given(
    st.builds(
        SectionRef,
        texts,
        texts,
        st.integers(0, 2**40),
        st.integers(0, 2**32),
        st.lists(ranges).map(tuple),
        st.integers(0, 2**31),
    )
)
def test_a_reference_survives_as_one_line_of_text(ref: SectionRef) -> None:
    text = ref.to_text()
    assert "\n" not in text and "\t" not in text
    assert SectionRef.from_text(text) == ref


records = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**6), texts), max_size=20)


@given(records, records)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_rows_come_back(
    local: Lake, accepted: list[tuple[int, int, str]], refused: list[tuple[int, int, str]]
) -> None:
    made = section(
        [row(offset, partition, note=text, _unset=[text]) for partition, offset, text in accepted],
        [reject(offset, partition, rules=[text, text]) for partition, offset, text in refused],
        [other(offset, partition, kind=text) for partition, offset, text in refused],
        withheld=[withheld(offset, partition, kind=text) for partition, offset, text in refused],
    )
    assert same(made, read_section(local, write(local, made)[0]))


def test_an_empty_section_comes_back_with_its_columns(lake: Lake) -> None:
    made = section(ranges=[Range(TOPIC, 0, None, 0, 9, 0)])
    read = read_section(lake, write(lake, made)[0])
    assert (read.rows.schema, read.rejects.schema, read.others.schema) == (refined_schema(CONTRACT), QUARANTINE, OTHERS)


def test_withheld_changes_are_cut_with_their_section_and_put_together(lake: Lake) -> None:
    refs = write(
        lake,
        section([row(0)], others=[other(1), other(2)], withheld=[withheld(1), withheld(2)]),
        section([row(3), row(4)], prev={(TOPIC, 0): 2}),
        section(rejects=[reject(5)], withheld=[withheld(5, kind="rejected")], prev={(TOPIC, 0): 4}),
    )
    assert [ref.rows for ref in refs] == [3, 2, 2]
    loaded = load(SectionCache(lake, refs), list(plan(refs, {(TOPIC, 0): 1}, no_gaps)))
    told = loaded.withheld.select(["id", "_kind", "_offset"]).to_pylist()
    assert told == [{"id": 2, "_kind": "filtered", "_offset": 2}, {"id": 5, "_kind": "rejected", "_offset": 5}]
    assert counts_of(loaded)["read"] == 4, "a withheld change is counted as what it is already"
    nothing = load(SectionCache(lake, refs[1:2]), list(plan(refs[1:2], {(TOPIC, 0): 2}, no_gaps))).withheld
    assert nothing.schema == WITHHELD_META and not len(nothing)


def test_a_damaged_segment_is_said(lake: Lake) -> None:
    ref = write(lake, section([row(0)]))[0]
    lake.put(ref.path, b"x" * ref.length)
    with pytest.raises(SegmentMissing, match="its bytes are not a section"):
        read_section(lake, ref)
    lake.put(ref.path, b"short")
    with pytest.raises(SegmentMissing):
        read_section(lake, ref)


def paths(lake: Lake) -> set[str]:
    return {entry["path"] for chunk in obstore.list(lake.objects, prefix=FOLDER) for entry in chunk}


def test_a_segment_goes_when_every_stream_in_it_is_past_it(lake: Lake) -> None:
    users = section([row(5, topic="users")], of=contract(stream="users"))
    shared = write(lake, section([row(0), row(0, partition=1)]), users)
    later = write(lake, section([row(1)], prev={(TOPIC, 0): 0}))
    stream = tables(lake)
    stream.commit([shared[0]], gaps=no_gaps, now_ms=NOW)
    orders = {"orders": stream.progress()}
    assert collect_garbage(lake, orders, NO_AGE).deleted == 0, "users still needs it"
    assert collect_garbage(lake, {**orders, "users": {("users", 0): 5}}, timedelta(hours=1)).deleted == 0, "too young"
    collected = collect_garbage(lake, {**orders, "users": {("users", 0): 5}}, NO_AGE)
    assert (collected.deleted, collected.kept) == (1, 1)
    assert paths(lake) == {later[0].path}


def test_a_trailer_of_many_ranges_is_found(local: Lake) -> None:
    many = [Range("a-rather-long-topic-name-" * 4, n, None, 0, 0, 1) for n in range(2000)]
    write(local, section(ranges=many))
    done = {"orders": {(r.topic, r.partition): 0 for r in many}}
    assert collect_garbage(local, {"orders": {}}, NO_AGE).deleted == 0
    assert collect_garbage(local, done, NO_AGE).deleted == 1


def test_a_segment_of_ten_thousand_rows_is_written_and_read_in_milliseconds(local: Lake) -> None:
    made = section([row(n) for n in range(10_000)])
    write(local, made)
    started = time.perf_counter()
    ref = write(local, made)[0]
    between = time.perf_counter()
    read = read_section(local, ref)
    assert between - started < 0.5 and time.perf_counter() - between < 0.5
    assert isinstance(read.rows, pa.Table)

"""Cutting off equal tails changes nothing but speed: every batch reads as it does without it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.model import UnknownFields
from tests import corpus
from tests.udfs import batches
from tests.udfs.corpus_state import TABLES, contract
from udfs import decode_json
from udfs.changes import Normalised
from udfs.envelope_tail import Template
from udfs.normalise import normalise

COLUMNS = {"id": "bigint", "name": "text"}


def both(records: pa.Table, made: Any, schemas: Any = corpus.schema) -> tuple[Normalised, Normalised]:
    """Give a batch normalised with tails cut off wherever two are equal, and without."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(decode_json, "_WORTH_CUTTING", 1)
        cut = normalise(records, made, schemas, now_ms=1)
        patched.setattr(decode_json, "_TEMPLATES", 0)
        return cut, normalise(records, made, schemas, now_ms=1)


def same(cut: Normalised, whole: Normalised) -> None:
    """Assert that two results are equal."""
    assert cut.kinds.equals(whole.kinds)
    # As text, because NaN is not equal to itself.
    assert repr(cut.changes.table.to_pylist()) == repr(whole.changes.table.to_pylist())
    assert cut.changes.row.equals(whole.changes.row)
    assert [(r.row.to_pylist(), r.rules.to_pylist()) for r in cut.rejects] == [
        (r.row.to_pylist(), r.rules.to_pylist()) for r in whole.rejects
    ]


@pytest.mark.parametrize("encoding", ["json", "json-schema"])
@pytest.mark.parametrize("table", TABLES)
def test_the_corpus_reads_the_same(encoding: str, table: str) -> None:
    same(*both(corpus.records(encoding, table), contract(encoding, table)))


MUTATIONS = [
    b"", b"0", b"7", b"00", b"{", b"}", b'"', b",", b'"op":"d",', b'"op":"z",', b'"after":{"id":9},', b"\xff", b"\0",
    b" ", b'"source":{},', b"-", b".", b"e5",
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_record_reads_the_same(data: Any) -> None:
    values = [batches.event({"id": n, "name": "ann"}, lsn=1000 + n) for n in range(8)]
    for _ in range(data.draw(st.integers(1, 3))):
        victim = data.draw(st.integers(0, 7))
        value = values[victim]
        start = data.draw(st.integers(0, len(value)))
        end = data.draw(st.integers(start, min(len(value), start + 3)))
        values[victim] = value[:start] + data.draw(st.sampled_from(MUTATIONS)) + value[end:]
    policy = data.draw(st.sampled_from(list(UnknownFields)))
    same(*both(batches.raw(values), batches.contract(COLUMNS, unknown_fields=policy)))


def test_the_tail_of_a_streamed_change_is_cut() -> None:
    template = Template.of(batches.event({"id": 1}))
    assert template is not None
    assert template.size > 300


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b'{"after":1}',
        batches.event({"id": 1}).replace(b'"op":', b'"after":{},"op":'),
        batches.event({"id": 1}).replace(b'"lsn":', b'"lsn":5,"lsn":'),
        batches.event({"id": 1}).replace(b'"txId":7', b'"txId":"7"'),
        batches.event({"id": 1}).replace(b'"db":"shop"', b'"db":{}'),
        batches.event({"id": 1})[:-1],
        batches.event({"id": 1}).replace(b'"snapshot":"false"', b'"snapshot":false'),
    ],
)
def test_an_unknown_tail_is_left_to_the_json_reader(value: bytes) -> None:
    assert Template.of(value) is None

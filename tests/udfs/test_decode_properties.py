"""Laws of decoding: it never raises, a split changes nothing, and poison takes only itself."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.model import Encoding, Envelope, UnknownFields
from tests import corpus
from tests.udfs import batches
from tests.udfs.corpus_state import ENCODINGS, contract
from udfs.changes import Normalised
from udfs.normalise import normalise

BOUNDED = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SPLIT = ("users", "types_torture", "orders", "docs", "products")

COLUMNS = {"id": "bigint", "name": "text", "amount": "numeric(12,2)", "at": "timestamptz", "tags": "text[]"}
REGISTRY = batches.Registry(
    {
        1: batches.envelope_schema(
            [
                {"name": "id", "type": "long"},
                {"name": "name", "type": ["null", "string"]},
                {
                    "name": "amount",
                    "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}],
                },
                {"name": "tags", "type": ["null", {"type": "array", "items": ["null", "string"]}]},
            ]
        )
    }
)


def good(encoding: Encoding, number: int) -> bytes:
    """Give a readable record."""
    row = {"id": number, "name": "ann", "amount": "AMg=", "at": "2024-01-01T00:00:00Z", "tags": ["a", None]}
    if encoding is Encoding.AVRO:
        from decimal import Decimal

        avro = {**row, "amount": Decimal("2.00")}
        return REGISTRY.framed(1, batches.change(avro, lsn=number))
    event = batches.event(row, lsn=number)
    return event if encoding is Encoding.JSON else b'{"schema":{"type":"struct","fields":[]},"payload":' + event + b"}"


@st.composite
def damaged(draw: st.DrawFn, encoding: Encoding) -> bytes:
    """Give arbitrary bytes, or a readable record with a part cut out, replaced or doubled."""
    if draw(st.booleans()):
        head = b"\0\0\0\0\1" if encoding is Encoding.AVRO and draw(st.booleans()) else b""
        return head + draw(st.binary(max_size=60))
    value = good(encoding, draw(st.integers(0, 9)))
    start = draw(st.integers(0, len(value)))
    end = draw(st.integers(start, min(len(value), start + 40)))
    return (
        value[:start]
        + draw(st.sampled_from([b"", b"{", b"}", b"\0", b"\n", b"}\n{", b"\xff", b'"', b"9"]))
        + value[end:]
    )


@pytest.mark.parametrize("envelope", list(Envelope))
@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("policy", list(UnknownFields))
@BOUNDED
@given(data=st.data())
def test_decode_never_raises_and_accounts_for_every_record(
    encoding: Encoding, envelope: Envelope, policy: UnknownFields, data: Any
) -> None:
    made = batches.contract(COLUMNS, encoding, envelope, unknown_fields=policy)
    values = data.draw(st.lists(st.one_of(st.none(), damaged(encoding)), max_size=12))
    found = normalise(batches.raw(values), made, REGISTRY, now_ms=1)
    _accounted(found, len(values))
    found.changes.table.validate(full=True)


@pytest.mark.parametrize("encoding", list(Encoding))
@BOUNDED
@given(data=st.data())
def test_a_record_fares_the_same_alone_and_among_others(encoding: Encoding, data: Any) -> None:
    made = batches.contract(COLUMNS, encoding)
    values = data.draw(st.lists(st.one_of(damaged(encoding), st.just(good(encoding, 3))), min_size=1, max_size=12))
    together = normalise(batches.raw(values), made, REGISTRY, now_ms=1)
    alone = [normalise(batches.raw([value]), made, REGISTRY, now_ms=1) for value in values]
    assert together.kinds.to_pylist() == [one.kinds[0].as_py() for one in alone]
    assert _rows(together) == [row for one in alone for row in _rows(one)]
    assert _reasons(together) == sorted(reason for one in alone for reason in _reasons(one))


@pytest.mark.parametrize("encoding", list(Encoding))
@BOUNDED
@given(data=st.data())
def test_poison_takes_only_itself(encoding: Encoding, data: Any) -> None:
    made = batches.contract(COLUMNS, encoding)
    values = [good(encoding, n) for n in range(100)]
    poisoned = data.draw(st.sets(st.integers(0, 99), max_size=5))
    for index in poisoned:
        cut = data.draw(st.integers(6, len(values[index]) - 1))
        values[index] = values[index][:cut]
    found = normalise(batches.raw(values), made, REGISTRY, now_ms=1)
    kinds = found.kinds.to_pylist()
    assert {i for i, kind in enumerate(kinds) if kind == "rejected"} == poisoned
    assert found.changes.row.to_pylist() == [i for i in range(100) if i not in poisoned]
    assert found.changes.table["id"].to_pylist() == found.changes.row.to_pylist()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("table", SPLIT)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_any_split_into_batches_gives_the_same_rows(encoding: str, table: str, data: Any) -> None:
    records, made = corpus.records(encoding, table), contract(encoding, table)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(records)), max_size=6)) | {0, len(records)})
    parts = [records.slice(a, b - a) for a, b in pairwise(cuts)]
    split = [normalise(part, made, corpus.schema, now_ms=1) for part in parts]
    whole = normalise(records, made, corpus.schema, now_ms=1)
    assert _rows(whole) == [row for part in split for row in _rows(part)]
    assert whole.kinds.to_pylist() == [kind for part in split for kind in part.kinds.to_pylist()]


def _accounted(found: Normalised, count: int) -> None:
    kinds = found.kinds.to_pylist()
    assert len(kinds) == count
    rejected = sorted({row for r in found.rejects for row in r.row.to_pylist()})
    assert rejected == [i for i, kind in enumerate(kinds) if kind == "rejected"]
    assert found.changes.row.to_pylist() == [i for i, kind in enumerate(kinds) if kind == "data"]


def _rows(found: Normalised) -> list[str]:
    rows = found.changes.table.drop_columns(["_offset"]).to_pylist()
    for name, mask in found.changes.unset.items():
        for row, unset in zip(rows, mask.to_pylist(), strict=True):
            row.setdefault("_unset", []).append(name) if unset else None
    for name, flags in found.changes.flags.items():
        for row, flag in zip(rows, flags.to_pylist(), strict=True):
            row.setdefault("_flags", []).append((name, flag)) if flag else None
    return [repr(row) for row in rows]


def _reasons(found: Normalised) -> list[str]:
    return sorted(
        repr((r.stage, *pair))
        for r in found.rejects
        for pair in zip(r.rules.to_pylist(), r.reason.to_pylist(), strict=True)
    )


def test_the_batch_may_be_empty() -> None:
    for encoding in Encoding:
        found = normalise(batches.raw([]), batches.contract(COLUMNS, encoding), REGISTRY, now_ms=1)
        assert len(found.changes) == len(found.kinds) == 0
        assert found.changes.table.schema.field("amount").type == pa.decimal128(38, 2)

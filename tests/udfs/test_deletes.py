"""A delete is asked for its key alone: nothing else of it may keep a row that the source no longer has."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.model import Encoding, UnknownFields, Unrepresentable
from tests import corpus
from tests.udfs import batches
from tests.udfs.batches import change, event, raw
from tests.udfs.rows import KEYS, NOW_MS
from udfs.refine import Refined, refine

COLUMNS = {"id": "bigint", "n": "integer", "at": "timestamp(6)"}
INFINITY = 9223372036854775807  # a timestamp's, as Debezium writes it


def refined(values: list[bytes | None], **settings: Any) -> Refined:
    of = batches.contract(COLUMNS, tables=("quarantine", "changes", "current"), **settings)
    return refine(raw(values), of, corpus.schema, KEYS, NOW_MS)


def row(n: object = 1, at: object = None, key: object = 1) -> dict[str, Any]:
    return {"id": key, "n": n, "at": at}


@pytest.mark.parametrize(
    ("before", "settings"),
    [
        (row("many"), {}),
        (row(2**70), {}),
        (row(at=INFINITY), {"unrepresentable": Unrepresentable.QUARANTINE}),
        (row(0), {"row_filter": "CAST(n AS VARCHAR)::DATE > DATE '2020-01-01'"}),
    ],
    ids=["another type", "too large", "unrepresentable", "filter cannot be evaluated"],
)
def test_an_old_row_that_could_not_be_stored_is_deleted_all_the_same(before: Any, settings: dict[str, Any]) -> None:
    found = refined([event(None, "d", before)], full_identity=True, **settings)
    assert found.rows.select(["id", "_op"]).to_pylist() == [{"id": 1, "_op": "d"}]
    assert not len(found.rejects) and not len(found.withheld)


def test_a_delete_without_a_key_that_can_be_read_is_refused() -> None:
    found = refined([event(None, "d", row(key="one")), event(None, "d", row(key=None))], full_identity=True)
    assert found.rejects["_rules"].to_pylist()[0] == ["wrong_type:id"]
    assert not [r for r in found.rows.to_pylist() if r["id"] is not None]


def test_an_update_is_not_refused_for_what_its_row_was_before() -> None:
    found = refined([event(row(5), "u", row("many"))], full_identity=True)
    assert found.rows.select(["id", "n"]).to_pylist() == [{"id": 1, "n": 5}]
    assert not len(found.rejects)
    assert refined([event(row("many"), "u", row(5))], full_identity=True).rejects["_rules"].to_pylist() == [
        ["wrong_type:n"]
    ]


@pytest.mark.parametrize("op", ["d", "t"])
def test_a_new_column_of_the_source_refuses_no_delete_and_no_truncate(op: str) -> None:
    names = {"id": "long", "n": ["null", "long"], "at": ["null", "long"], "later": ["null", "string"]}
    registry = batches.Registry({1: batches.envelope_schema([{"name": n, "type": t} for n, t in names.items()])})
    of = batches.contract(
        COLUMNS, Encoding.AVRO, tables=("quarantine", "changes", "current"), unknown_fields=UnknownFields.QUARANTINE
    )
    before = None if op == "t" else {**row(), "later": None}
    values = [registry.framed(1, change(None, op, before)), registry.framed(1, change({**row(), "later": "x"}, "u"))]
    found = refine(raw(values), of, registry, KEYS, NOW_MS)
    assert found.rows["_op"].to_pylist() == [op]
    assert found.rejects["_rules"].to_pylist() == [["unknown_field"]]

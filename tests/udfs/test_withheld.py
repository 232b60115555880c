"""Withheld changes: which keys are told of although the change is no row, and that nothing else is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.columns import withheld_schema
from contracts.model import Action, Contract, Encoding, Mask, Rule, Unrepresentable
from tests import corpus
from tests.udfs import batches
from tests.udfs.batches import change, event, raw, text
from tests.udfs.rows import KEYS, NOW_MS, contract, field
from udfs.refine import Refined, refine

STATE = ("quarantine", "changes", "current")
KEYED = (
    Rule("key_present", "key_present", Action.QUARANTINE),
    Rule("large", "maximum", Action.QUARANTINE, "n", {"value": 9}),
    Rule("even", "expression", Action.DROP, None, {"sql": "n <> 7"}),
)


def people(**rest: Any) -> Contract:
    """Give a contract that keeps its filter's and rules' victims by a masked key of two columns."""
    fields = (
        field("id", "bigint", key_position=1),
        field("ssn", key_position=2, private=True, mask=Mask("hash", key_id="first")),
        field("n", "integer"),
        field("secret", private=True, mask=Mask("drop")),
    )
    return contract(*fields, **{"tables": STATE, "rules": KEYED, "row_filter": "n <> 5", **rest})


def row(number: int, n: object = 1, ssn: str | None = "078-05-1120") -> dict[str, Any]:
    return {"id": number, "ssn": ssn, "n": n, "secret": "hush"}


def refined(values: list[bytes | None], of: Contract | None = None, **rest: Any) -> Refined:
    return refine(raw(values, **rest), of or people(), corpus.schema, KEYS, NOW_MS)


def test_a_change_that_is_filtered_dropped_or_refused_is_told_by_its_key() -> None:
    values = [event(row(0)), event(row(1, 5), "u"), event(row(2, 7), "r"), event(row(3, 10)), event(row(4, "many"))]
    found = refined(values)
    assert found.withheld.schema == withheld_schema(people())
    assert found.withheld.select(["id", "_kind", "_op", "_offset"]).to_pylist() == [
        {"id": 1, "_kind": "filtered", "_op": "u", "_offset": 1},
        {"id": 2, "_kind": "dropped", "_op": "r", "_offset": 2},
        {"id": 3, "_kind": "rejected", "_op": "c", "_offset": 3},
        {"id": 4, "_kind": "rejected", "_op": "c", "_offset": 4},
    ]
    assert found.withheld["_position_minor"].to_pylist() == [101] * 4
    assert found.withheld["_source_time"].null_count == 0


@pytest.mark.parametrize("n", [5, 7, 10, "many"], ids=["filtered", "dropped", "refused by a rule", "unfit"])
def test_a_row_of_a_snapshot_that_is_no_change_says_which_and_where(n: object) -> None:
    told = change(row(1, n), "r")
    told["source"] |= {"snapshot": "last", "sequence": '[null,"100"]'}
    (found,) = refined([text(told)]).withheld.to_pylist()
    names = ("_op", "_snapshot", "_position_major", "_position_minor", "_topic", "_offset")
    assert [found[name] for name in names] == ["r", "last", None, 100, "shop.t", 0]
    assert found["_source_time"] is not None


@pytest.mark.parametrize(
    "value",
    [b"{", event(row(1, 10, None)), event({**row(1), "id": "x"}), event(None, "u"), event(None, "t"), None],
    ids=["unreadable", "null in the key", "key of another type", "no image", "truncate", "tombstone"],
)
def test_a_record_without_a_whole_key_is_withheld_from_nobody(value: bytes | None) -> None:
    assert not len(refined([value]).withheld)


def test_a_truncate_passes_filter_and_rules_without_a_key() -> None:
    found = refined([event(None, "t")])
    assert found.rows.select(["id", "_op"]).to_pylist() == [{"id": None, "_op": "t"}]
    assert not len(found.rejects) and not len(found.others)


def test_a_key_that_its_mask_would_make_one_with_others_is_not_told() -> None:
    phone = field("phone", key_position=1, private=True, mask=Mask("fpe_digits", key_id="first"))
    of = contract(phone, field("n", "integer"), tables=STATE, rules=KEYED, row_filter="n <> 5")
    values = [event({"phone": p, "n": n}) for p in ("12345", "123456") for n in (5, 10, "x")]
    assert refined(values, of).withheld["_offset"].to_pylist() == [3, 4, 5]


def test_a_contract_without_tables_of_keys_withholds_nothing() -> None:
    found = refined([event(row(1, 5)), event(row(3, 10))], people(tables=("quarantine", "changes")))
    assert not len(found.withheld)
    assert (len(found.others), len(found.rejects)) == (1, 1)


def test_a_withheld_key_change_names_the_other_key_masked() -> None:
    before = text({"id": 7, "ssn": "219-09-9999"})
    found = refined([event(row(1, 5))], old_key=before)
    moved = refined([event(row(1, 1))], old_key=before)
    assert found.withheld["_previous_key"].to_pylist() == moved.rows["_previous_key"].to_pylist()
    assert "219-09-9999" not in found.withheld["_previous_key"][0].as_py()


@pytest.mark.parametrize("encoding", [Encoding.JSON, Encoding.JSON_SCHEMA, Encoding.AVRO])
def test_a_value_that_does_not_fit_is_refused_with_its_key_in_every_encoding(encoding: Encoding) -> None:
    of = batches.contract({"id": "bigint", "n": "integer"}, encoding, tables=STATE)
    after = {"id": 1, "n": "many"}
    found = refine(raw([_written(encoding, after)]), of, REGISTRY, KEYS, NOW_MS)
    assert found.rejects["_rules"].to_pylist() == [["wrong_type:n"]]
    assert found.rejects["_key"].to_pylist() == ['{"id":1}']
    assert found.withheld.select(["id", "_kind"]).to_pylist() == [{"id": 1, "_kind": "rejected"}]


REGISTRY = batches.Registry(
    {1: batches.envelope_schema([{"name": "id", "type": "long"}, {"name": "n", "type": "string"}])}
)


def _written(encoding: Encoding, after: dict[str, Any]) -> bytes:
    if encoding is Encoding.AVRO:
        return REGISTRY.framed(1, change(after))
    if encoding is Encoding.JSON:
        return event(after)
    fields = [{"field": "id", "type": "int64"}, {"field": "n", "type": "string"}]
    schema = {"type": "struct", "fields": [{"field": "after", "type": "struct", "fields": fields}]}
    return text({"schema": schema, "payload": change(after)})


RECORD = st.tuples(
    st.integers(0, 3) | st.none(),
    st.integers(100, 999).map(lambda n: f"078-05-{n}") | st.none(),
    st.sampled_from([1, 5, 7, 10, "x", None, 2**70]),
    st.sampled_from(["c", "u", "r", "d", "t"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(RECORD, max_size=20))
def test_what_is_withheld_is_counted_or_refused_and_its_key_is_the_one_rows_have(records: list[Any]) -> None:
    values = [_event(*record) for record in records]
    found = refined(values)
    kept = refined(values, people(row_filter=None, rules=KEYED[:1], unrepresentable=Unrepresentable.NULL))
    keys = {r["_offset"]: (r["id"], r["ssn"]) for r in kept.rows.to_pylist()}
    rejected = set(found.rejects["_offset"].to_pylist())
    counted = {r["_offset"]: r["_kind"].partition(":")[0] for r in found.others.to_pylist()}
    offsets = found.withheld["_offset"].to_pylist()
    assert offsets == sorted(set(offsets))
    assert not set(offsets) & set(found.rows["_offset"].to_pylist())
    for one in found.withheld.to_pylist():
        place = one["_offset"]
        assert one["_kind"] == ("rejected" if place in rejected else counted[place])
        assert keys.get(place, (one["id"], one["ssn"])) == (one["id"], one["ssn"])
    # Nothing is lost: what is in no table of changes, but has a key, is withheld.
    assert {o for o in keys if keys[o][0] is not None} - set(found.rows["_offset"].to_pylist()) <= set(offsets)
    told = json.dumps(found.withheld.to_pylist(), default=str)
    assert "078-05" not in told and "hush" not in told


def _event(number: int | None, ssn: str | None, n: object, op: str) -> bytes:
    image = None if op == "t" else {"id": number, "ssn": ssn, "n": n, "secret": "hush"}
    return event(None, op, image) if op == "d" else event(image, op)


def test_the_withheld_of_no_records_is_an_empty_table() -> None:
    assert isinstance(refined([]).withheld, pa.Table) and not len(refined([]).withheld)
    assert not len(refined([event(row(1))], replace(people(), row_filter=None, rules=())).withheld)


def test_a_withheld_change_names_the_columns_that_it_does_not_say() -> None:
    of = batches.contract({"id": "bigint", "n": "integer", "body": "text"}, tables=STATE)
    unsaid = "__debezium_unavailable_value"
    values = [event({"id": 1, "n": "many", "body": unsaid}, "u"), event({"id": 2, "n": "many", "body": "x"}, "u")]
    assert refined(values, of).withheld.select(["id", "_unset"]).to_pylist() == [
        {"id": 1, "_unset": ["body"]},
        {"id": 2, "_unset": None},
    ]

"""Masks: what each kind makes of a value, and the laws they keep."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.columns import masked_type
from contracts.masking import MASK_KINDS
from contracts.model import Mask
from contracts.types import parse_type
from tests.udfs.cases_of import cases, kinds, typed
from tests.udfs.rows import KEYS, changes, contract, derived, field
from udfs import digests
from udfs.ciphers import Unreadable
from udfs.keys import KeyRing
from udfs.masks import MASKS, mask, masking, unmask

REPEATABLE = ("hash", "email_hash", "tokenise", "fpe_digits")


def masked(kind: str, values: list[Any], declared: str = "text", key_id: str = "first", **arguments: Any) -> list[Any]:
    """Give values after a mask."""
    stored = parse_type(declared)
    result = masking(stored, Mask(kind, arguments, key_id), KEYS)(pa.array(values, stored.arrow))
    assert result.type == masked_type(stored.arrow, Mask(kind))
    assert len(result) == len(values)
    result.validate(full=True)
    answer: list[Any] = result.to_pylist()
    return answer


def test_every_mask_has_a_case_file_and_contracts_know_it() -> None:
    assert kinds("masks") == set(MASKS)
    assert set(MASK_KINDS) == set(MASKS)


@pytest.mark.parametrize(("kind", "case"), cases("masks"))
def test_a_mask_hides(kind: str, case: dict[str, Any]) -> None:
    stored = parse_type(case["type"])
    if case.get("gone"):
        of = contract(field("id"), field("value", case["type"], mask=Mask(kind)))
        assert "value" not in mask(changes(of, [{"id": "1"}]), of, KEYS).table.column_names
        return
    arguments, key_id = dict(case.get("arguments", {})), case.get("key_id", "first")
    if "value" in arguments:
        arguments["value"] = typed(arguments["value"], stored.arrow)  # as contracts read it
    if "random" in case:
        clear = [typed(v, stored.arrow) for v in case["random"]]
        tokens = masked(kind, clear, case["type"], key_id)
        present = [t for t in tokens if t is not None]
        assert len(set(present)) == len(present)
        assert all(t.startswith(case["prefix"]) for t in present)
        opened = [None if t is None else unmask(t, Mask(kind, key_id=key_id), KEYS) for t in tokens]
        assert opened == [None if v is None else str(v) for v in clear]
        return
    out = masked_type(stored.arrow, Mask(kind))
    clear = [typed(value, stored.arrow) for value, _ in case["values"]]
    wanted = [typed(value, out) for _, value in case["values"]]
    tokens = masked(kind, clear, case["type"], key_id, **arguments)
    assert tokens == wanted
    if case.get("opens"):
        opened = [None if t is None else unmask(t, Mask(kind, key_id=key_id), KEYS) for t in tokens]
        assert opened == [None if v is None else str(v) for v in clear]


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=0, max_size=40)
PHONES = st.from_regex(r"\+?[0-9]{6,15}", fullmatch=True)
EMAILS = st.from_regex(r"[a-z.]{5,12}[0-9]{2}@[a-z]{3,8}\.(com|org)", fullmatch=True)


@given(st.lists(st.one_of(TEXTS, PHONES, EMAILS, st.none()), max_size=30))
@settings(max_examples=60, deadline=None)
def test_masked_output_never_contains_the_clear_value(values: list[str | None]) -> None:
    for kind in (*REPEATABLE, "encrypt", "keep_first", "keep_last"):
        for clear, token in zip(values, masked(kind, values, n=3), strict=True):
            if clear is None:
                assert token is None
            elif len(clear) > 5 and "*" not in clear:
                assert clear not in token, kind


@given(st.lists(st.one_of(TEXTS, PHONES, EMAILS, st.none()), max_size=20))
@settings(max_examples=60, deadline=None)
def test_the_same_value_gives_the_same_token_in_any_batch(values: list[str | None]) -> None:
    for kind in REPEATABLE:
        together = masked(kind, values)
        assert together == [masked(kind, [value])[0] for value in values]


@given(st.lists(TEXTS, unique=True, max_size=20))
@settings(max_examples=60, deadline=None)
def test_tokens_and_hashes_keep_values_apart_and_tokens_lead_back(values: list[str]) -> None:
    for kind in ("tokenise", "hash"):
        assert len(set(masked(kind, list(values)))) == len(values)
    back = [unmask(token, Mask("tokenise", key_id="first"), KEYS) for token in masked("tokenise", list(values))]
    assert back == values


@given(st.lists(PHONES, unique=True, max_size=20))
@settings(max_examples=60, deadline=None)
def test_format_preserving_tokens_keep_their_form_and_lead_back(values: list[str]) -> None:
    tokens = masked("fpe_digits", list(values))
    assert len(set(tokens)) == len(values)
    assert [unmask(token, Mask("fpe_digits", key_id="first"), KEYS) for token in tokens] == values
    shape = [[c if not c.isdigit() else "0" for c in text] for text in values]
    assert [[c if not c.isdigit() else "0" for c in text] for text in tokens] == shape


@pytest.mark.parametrize("count", [0, 1, 300, 2000])
@pytest.mark.parametrize("repeated", [1, 7])
def test_hashes_equal_the_standard_library_s(count: int, repeated: int) -> None:
    values = [f"é{i // repeated}" if i % 11 else None for i in range(count)]
    key = KEYS.subkey("first", "hash").hex().encode()
    wanted = [None if v is None else hmac.new(key, v.encode(), hashlib.sha256).hexdigest() for v in values]
    assert masked("hash", values) == wanted
    one_by_one = digests.Hmac(KEYS.subkey("first", "hash"))
    present = [v for v in values if v is not None]
    assert one_by_one._one_by_one(pa.array(present, pa.string())).to_pylist() == [w for w in wanted if w is not None]


@pytest.mark.parametrize("kind", [*REPEATABLE, "encrypt", "keep_first", "keep_last"])
def test_slices_of_arrays_are_masked_like_whole_ones(kind: str) -> None:
    values = pa.array(["+33612345678", None, "ann.lee@example.com", "é" * 9, ""])[1:4]
    apply = masking(parse_type("text"), Mask(kind, {"n": 2}, "first"), KEYS)
    if kind != "encrypt":
        assert apply(values).to_pylist() == apply(pa.array(values.to_pylist(), pa.string())).to_pylist()
    assert apply(values).null_count == 1


@pytest.mark.parametrize("kind", sorted(MASKS.keys() - {"drop", "truncate_date", "round_number"}))
def test_columns_of_nulls_and_empty_columns_are_masked(kind: str) -> None:
    arguments = {"n": 2, "value": "x"}
    assert masked(kind, [], **arguments) == []
    assert masked(kind, [None, None], **arguments) == [None, None]


def test_tokens_of_another_key_do_not_open() -> None:
    for kind in ("tokenise", "encrypt"):
        (token,) = masked(kind, ["ann"])
        other = KeyRing({"first": bytes(32)})
        with pytest.raises(Unreadable):
            unmask(token, Mask(kind, key_id="first"), other)


def test_encrypted_values_of_an_old_key_still_open_after_a_new_one_is_used() -> None:
    (old,) = masked("encrypt", ["ann"], key_id="first")
    assert unmask(old, Mask("encrypt", key_id="second"), KEYS) == "ann"


def test_nothing_leads_back_from_a_hash() -> None:
    with pytest.raises(ValueError, match="nothing leads back"):
        unmask("x", Mask("hash", key_id="first"), KEYS)


PERSON = contract(
    field("id", "bigint", key_position=1, mask=Mask("tokenise", key_id="first")),
    field("phone", key_position=2, mask=Mask("fpe_digits", key_id="first")),
    field("code", key_position=3),
    field("email", private=True, mask=Mask("email_hash", key_id="first")),
    field("secret", private=True, mask=Mask("drop")),
    derived=(derived("whole", "text", "email", Mask("hash", key_id="first")),),
)


def test_keys_before_and_after_a_change_get_the_tokens_of_the_key_columns() -> None:
    old = json.dumps({"id": 7, "phone": "+33612345678", "code": "ü"})
    rows = [
        {"id": 7, "phone": "+33612345678", "_next_key": None},
        {"id": 8, "phone": "+33600000000", "_previous_key": old},
    ]
    result = mask(changes(PERSON, rows), PERSON, KEYS).table
    previous = json.loads(result["_previous_key"][1].as_py())
    assert previous == {"id": result["id"][0].as_py(), "phone": result["phone"][0].as_py(), "code": "ü"}
    assert result["_previous_key"][0].as_py() is None
    assert result["_next_key"].null_count == 2


def test_a_key_of_another_shape_than_its_columns_is_masked_to_null_and_never_shown() -> None:
    keys = ['{"id": "no number", "phone": 12}', '{"id": [1], "phone": null}', '{"other": 1}']
    given = changes(PERSON, [{"_next_key": key} for key in keys])
    result = [json.loads(text) for text in mask(given, PERSON, KEYS).table["_next_key"].to_pylist()]
    assert result == [{"id": None, "phone": "**"}, {"id": None, "phone": None}, {}]


def test_dropped_columns_leave_no_trace() -> None:
    given = changes(
        PERSON, [{"secret": None, "email": None}], unset={"secret": [True], "email": [True]}, flags={"secret": ["nan"]}
    )
    result = mask(given, PERSON, KEYS)
    assert "secret" not in result.table.column_names
    assert set(result.unset) == {"email"}
    assert not result.flags
    assert result.table["email"][0].as_py() is None


def test_derived_columns_are_masked_too_once_they_are_there() -> None:
    given = changes(PERSON, [{"email": "ann@example.com"}])
    assert "whole" not in mask(given, PERSON, KEYS).table.column_names
    table = given.table.add_column(5, "whole", pa.array(["ann@example.com"]))
    assert (
        mask(type(given)(table, given.row), PERSON, KEYS).table["whole"][0].as_py()
        == masked("hash", ["ann@example.com"])[0]
    )

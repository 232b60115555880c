"""Keys: where they come from, what they refuse, and that they never show."""

from __future__ import annotations

import base64
import pickle

import pytest

from contracts.model import Mask, PayloadPolicy
from tests.udfs.rows import KEYS, contract, field
from udfs.keys import KeyFault, KeyRing, pinned_keys, require_keys

SECRET = bytes(range(100, 132))
ENCODED = base64.b64encode(SECRET).decode()


def test_a_key_file_holds_one_key_a_line() -> None:
    ring = KeyRing.parse(f"# keys of the shop\n\npii-2026 = {ENCODED}\nother={ENCODED}\n")
    assert "pii-2026" in ring
    assert "PII_2026" in ring
    assert "missing" not in ring


def test_all_faulty_lines_are_reported_without_what_they_hold() -> None:
    with pytest.raises(KeyFault) as refused:
        KeyRing.parse(f"a = {ENCODED}\nb {ENCODED}\nc = not*base64\na = {ENCODED}\n")
    assert "line 2" in str(refused.value)
    assert "line 3" in str(refused.value)
    assert "more than once" in str(refused.value)
    assert ENCODED not in str(refused.value)


def test_keys_come_from_the_environment_and_the_later_ring_counts() -> None:
    ring = KeyRing({"pii-2026": bytes(32)}) | KeyRing.from_environment({"TIDEGATE_KEY_PII_2026": ENCODED, "HOME": "x"})
    assert ring.secrets["PII_2026"] == SECRET
    with pytest.raises(KeyFault, match="TIDEGATE_KEY_A"):
        KeyRing.from_environment({"TIDEGATE_KEY_A": "%%%"})


def test_short_secrets_and_clashing_ids_are_refused() -> None:
    with pytest.raises(KeyFault, match="shorter than 32 bytes"):
        KeyRing({"a": b"short"})
    with pytest.raises(KeyFault, match="more than once"):
        KeyRing({"a-b": SECRET, "A_B": SECRET})


def test_a_ring_never_shows_or_travels() -> None:
    ring = KeyRing({"a": SECRET})
    ring.subkey("a", "hash")
    assert repr(ring) == str(ring) == "KeyRing(A)"
    with pytest.raises(TypeError, match="must not be pickled"):
        pickle.dumps(ring)


def test_each_purpose_has_its_own_subkey() -> None:
    purposes = {KEYS.subkey("first", purpose) for purpose in ("hash", "email_hash", "encrypt", "payload")}
    assert len(purposes) == 4
    assert len(KEYS.subkey("first", "tokenise", 64)) == 64


def test_all_missing_keys_are_named_with_who_needs_them() -> None:
    of = contract(
        field("a", mask=Mask("hash", key_id="gone")),
        field("b", mask=Mask("encrypt", key_id="first")),
        field("c", mask=Mask("keep_first", {"n": 1})),
        payload=PayloadPolicy.ENCRYPTED,
        payload_key_id="lost",
    )
    with pytest.raises(KeyFault) as refused:
        require_keys([of], KEYS)
    assert "'gone' is missing, needed by people.a" in str(refused.value)
    assert "'lost' is missing, needed by people.payload" in str(refused.value)
    require_keys([of], KEYS | KeyRing({"gone": SECRET, "lost": SECRET}))


def test_pins_tell_that_a_key_changed_under_the_same_id() -> None:
    of = contract(field("a", mask=Mask("hash", key_id="first")), field("b", mask=Mask("encrypt", key_id="first")))
    pinned = pinned_keys(of, KEYS)
    assert set(pinned) == {"a"}  # encryption may change its key at any time
    assert pinned["a"] == f"first:{KEYS.fingerprint('first')}"
    assert pinned != pinned_keys(of, KeyRing({"first": bytes(32)}))
    assert bytes(range(32)).hex()[:16] not in pinned["a"]

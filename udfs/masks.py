"""Masks: every private field is masked here, with all that is derived from it, before anything touches storage.

Masks that make text start from a value's canonical text (udfs/canonical.py). Null stays null, and a value that was not
sent stays unset. No mask is bound to its column: the same value under the same key id gives the same token in every
column and table, so that masked keys still join. `_extra` (fields the contract does not know) is not masked: whoever
chooses `keep` for unknown fields decides that they may be stored as they come.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from contracts.columns import masked_type
from contracts.model import Arguments, Contract, Derived, Field, Mask
from contracts.types import ColumnType
from udfs.arrays import flat, spread
from udfs.canonical import canonical_text, json_value
from udfs.changes import Changes
from udfs.ciphers import SIV_KEY_BYTES, Encryption, Tokens
from udfs.compiled import Compiled
from udfs.digests import Hmac
from udfs.emails import email_hash
from udfs.fpe import DigitCipher
from udfs.generalise import constant, keep_first, keep_last, round_number, truncate_date
from udfs.keys import KeyRing

Masking = Callable[[pa.Array], pa.Array]
KEY_COLUMNS = ("_previous_key", "_next_key")  # JSON of a key


def _constant(arguments: Arguments, _key_id: str, _keys: KeyRing) -> Masking:
    return lambda values: constant(values, arguments["value"])


def _keep_first(arguments: Arguments, _key_id: str, _keys: KeyRing) -> Masking:
    return lambda texts: keep_first(texts, arguments["n"], arguments.get("fill", "*"))


def _keep_last(arguments: Arguments, _key_id: str, _keys: KeyRing) -> Masking:
    return lambda texts: keep_last(texts, arguments["n"], arguments.get("fill", "*"))


def _hash(_arguments: Arguments, key_id: str, keys: KeyRing) -> Masking:
    return Hmac(keys.subkey(key_id, "hash")).hex


def _email_hash(_arguments: Arguments, key_id: str, keys: KeyRing) -> Masking:
    hmac = Hmac(keys.subkey(key_id, "email_hash"))
    return lambda texts: email_hash(texts, hmac)


def _tokenise(_arguments: Arguments, key_id: str, keys: KeyRing) -> Masking:
    return Tokens(keys.subkey(key_id, "tokenise", SIV_KEY_BYTES)).seal


def _encrypt(_arguments: Arguments, key_id: str, keys: KeyRing) -> Masking:
    return Encryption(key_id, keys).seal


def _fpe_digits(_arguments: Arguments, key_id: str, keys: KeyRing) -> Masking:
    return DigitCipher(keys.subkey(key_id, "fpe_digits")).seal


def _truncate_date(arguments: Arguments, _key_id: str, _keys: KeyRing) -> Masking:
    return lambda values: truncate_date(values, arguments["to"])


def _round_number(arguments: Arguments, _key_id: str, _keys: KeyRing) -> Masking:
    return lambda values: round_number(values, arguments["to"])


# Kind of mask -> what makes its function from (arguments, key id, keys). `drop` makes none: the column goes.
MASKS: Mapping[str, Callable[[Arguments, str, KeyRing], Masking] | None] = {
    "drop": None,
    "constant": _constant,
    "keep_first": _keep_first,
    "keep_last": _keep_last,
    "hash": _hash,
    "email_hash": _email_hash,
    "tokenise": _tokenise,
    "encrypt": _encrypt,
    "fpe_digits": _fpe_digits,
    "truncate_date": _truncate_date,
    "round_number": _round_number,
}


def masking(stored: ColumnType, mask: Mask, keys: KeyRing) -> Masking:
    """Give the function that masks a column of a stored type.

    Raises KeyFault when its key is missing.
    """
    make = MASKS[mask.kind]
    if make is None:
        raise ValueError("a dropped column has no masked form: leave it out")
    apply = make(mask.arguments, mask.key_id or "", keys)
    if masked_type(stored.arrow, mask) == stored.arrow and not pa.types.is_binary(stored.arrow):
        return apply
    return lambda values: apply(canonical_text(values))


def unmask(token: str, mask: Mask, keys: KeyRing) -> str:
    """Give the canonical text behind a token of a reversible mask (tokenise, encrypt, fpe_digits).

    Raises Unreadable for a token that the key does not open, KeyFault without the key, ValueError for other masks.
    """
    key_id = mask.key_id or ""
    if mask.kind == "tokenise":
        return Tokens(keys.subkey(key_id, "tokenise", SIV_KEY_BYTES)).open(token)
    if mask.kind == "encrypt":
        return Encryption.open(token, keys)
    if mask.kind == "fpe_digits":
        return DigitCipher(keys.subkey(key_id, "fpe_digits")).open(token)
    raise ValueError(f"nothing leads back from the mask {mask.kind!r}")


@dataclass(frozen=True)
class _Plan:
    """What happens to the columns of one contract's changes."""

    dropped: frozenset[str]
    masked: Mapping[str, Masking]
    keys: Mapping[str, tuple[pa.DataType, Masking]]  # masked key field -> stored type, mask
    key_names: tuple[str, ...]


def _plan(contract: Contract, keys: KeyRing) -> _Plan:
    columns: list[Field | Derived] = [*contract.fields, *contract.derived]
    private = [(c, c.mask) for c in columns if c.mask is not None]
    masked = {c.name: masking(c.type, mask, keys) for c, mask in private if mask.kind != "drop"}
    return _Plan(
        frozenset(c.name for c, mask in private if mask.kind == "drop"),
        masked,
        {f.name: (f.type.arrow, masked[f.name]) for f in contract.key if f.name in masked},
        tuple(f.name for f in contract.key),
    )


_planned: Compiled[_Plan] = Compiled(_plan)


def mask(changes: Changes, contract: Contract, keys: KeyRing) -> Changes:
    """Mask every private column, the keys in _previous_key and _next_key included, and leave dropped columns out.

    Raises KeyFault when a key is missing (udfs.keys.require_keys finds that out at the start).
    """
    plan = _planned(contract, keys)
    table = changes.table.drop_columns(sorted(plan.dropped.intersection(changes.table.column_names)))
    for name, apply in plan.masked.items():
        table = _replaced(table, name, apply)
    for name in KEY_COLUMNS if plan.keys else ():
        if table[name].null_count < len(table):
            table = _replaced(table, name, lambda texts: _masked_keys(texts, plan))
    return Changes(
        table,
        changes.row,
        {name: marks for name, marks in changes.unset.items() if name not in plan.dropped},
        {name: reasons for name, reasons in changes.flags.items() if name not in plan.dropped},
        changes.violations,
    )


def _replaced(table: pa.Table, name: str, apply: Masking) -> pa.Table:
    """Put a masked column in the place of the clear one; derived columns may not be there yet."""
    place = table.schema.get_field_index(name)
    return table if place < 0 else table.set_column(place, name, apply(flat(table.column(place))))


def _masked_keys(texts: pa.StringArray, plan: _Plan) -> pa.StringArray:
    """Mask the fields of keys written as JSON objects exactly as the key columns are; null stays null."""
    # Key changes are rare, so that their JSON is read row by row; each field is then masked as one column.
    read = [json.loads(text) for text in texts.drop_null().to_pylist()]
    keys = [{name: key[name] for name in plan.key_names if name in key} for key in read]
    for name, (stored, apply) in plan.keys.items():
        values = apply(_typed([key.get(name) for key in keys], stored)).to_pylist()
        for key, value in zip(keys, values, strict=True):
            if name in key:
                key[name] = value
    written = [json.dumps(key, default=json_value, separators=(",", ":"), ensure_ascii=False) for key in keys]
    return spread(pa.array(written, pa.string()), texts.is_valid())


def _typed(values: list[object], stored: pa.DataType) -> pa.Array:
    """Give values read from JSON as the type that a column stores them as; null for what cannot be one."""
    try:
        return _converted(values, stored)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        if len(values) == 1:
            return pa.nulls(1, stored)
        return pa.concat_arrays([_typed([value], stored) for value in values])


def _converted(values: list[object], stored: pa.DataType) -> pa.Array:
    if pa.types.is_string(stored):
        return pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values], stored)
    if pa.types.is_binary(stored):
        return pa.array([None if v is None else bytes.fromhex(str(v)) for v in values], stored)
    if any(isinstance(v, str) for v in values):
        return pa.array([None if v is None else str(v) for v in values], pa.string()).cast(stored)
    return pa.array(values, stored)

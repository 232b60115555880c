"""Debezium's placeholder for a value that PostgreSQL did not send (unchanged TOAST), in all its shapes.

Source: connector property unavailable.value.placeholder; its shapes by column type were seen in Debezium 3.7 output.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.types import ColumnType
from udfs import slices
from udfs.converted import Mask

PLACEHOLDER = "__debezium_unavailable_value"
BASE64 = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="
IN_MAP = tuple(f'{{"{PLACEHOLDER}":{space}"{PLACEHOLDER}"}}' for space in ("", " "))
SENT_AS_BYTES = frozenset({"bytea", "numeric", "bit", "varbit"})
_TEXT, _BASE64 = pa.scalar(PLACEHOLDER), pa.scalar(BASE64)
_IN_MAPS = [pa.scalar(text) for text in (PLACEHOLDER, *IN_MAP)]
MAY_BE_MAPS = frozenset({"hstore", "json", "jsonb"})  # a schema calls an hstore JSON too
CODES = list(PLACEHOLDER.encode())  # an int[] holds the placeholder's byte values


def unset(values: pa.Array, kind: ColumnType, base64: bool) -> Mask | None:
    """Tell which values of a column stand for "not sent"; None when there are none or the type is never left out."""
    if not kind.toastable or not len(values):
        return None
    found = _shapes(values, kind, base64)
    return found if found is not None and found.any() else None


def unsent(value: object) -> bool:
    """Tell whether a single value of an unknown type stands for "not sent"."""
    if isinstance(value, bytes):
        return value == PLACEHOLDER.encode()
    if isinstance(value, str):
        return value in (PLACEHOLDER, BASE64, *IN_MAP)
    if isinstance(value, dict):
        return unsent(value["value"]) if set(value) == {"scale", "value"} else value == {PLACEHOLDER: PLACEHOLDER}
    if isinstance(value, list):
        alone = len(value) == 1 and (value[0] == (PLACEHOLDER, PLACEHOLDER) or unsent(value[0]))
        return alone or value == CODES
    return False


def _shapes(values: pa.Array, kind: ColumnType, base64: bool) -> Mask | None:
    held = values.type
    if pa.types.is_list(held) or pa.types.is_large_list(held):
        return _in_lists(values, base64)
    if pa.types.is_map(held):
        keys = pc.list_flatten(values.cast(pa.list_(pa.struct([held.key_field, held.item_field]))))
        return _alone(values, _equal(keys.field(0), False)) if len(keys) else None
    if pa.types.is_struct(held):  # VariableScaleDecimal
        index = held.get_field_index("value")
        return _equal(values.flatten()[index], base64) if index >= 0 else None
    if kind.name in MAY_BE_MAPS and pa.types.is_string(held):
        found = reduce(pc.or_, (pc.equal(values, text) for text in _IN_MAPS))
        return slices.mask_of(found) if found.true_count else None
    return _equal(values, base64 and kind.name in SENT_AS_BYTES)


def _equal(values: pa.Array, bytes_as_text: bool) -> Mask | None:
    """Compare with the placeholder as text, as bytes, or as base64 of the bytes; None when nothing is equal."""
    held = values.type
    if pa.types.is_string(held) or pa.types.is_large_string(held):
        found = pc.equal(values, _TEXT)
        if bytes_as_text:
            found = pc.or_(found, pc.equal(values, _BASE64))
    elif pa.types.is_binary(held) or pa.types.is_large_binary(held):
        found = pc.equal(values, pa.scalar(PLACEHOLDER.encode(), held))
    else:
        return None
    return slices.mask_of(found) if found.true_count else None


def _in_lists(values: pa.Array, base64: bool) -> Mask | None:
    """A list of text or bytes holds the placeholder as its one element, a list of integers its bytes."""
    flat = pc.list_flatten(values)
    if pa.types.is_integer(flat.type):
        return _spelled(values, flat)
    found = _equal(flat, base64)
    return None if found is None else _alone(values, found)


def _alone(values: pa.Array, found: Mask | None) -> Mask | None:
    """Carry a mask of elements to the lists that hold just one."""
    if found is None or not found.any():
        return None
    lengths = _lengths(values)
    starts = np.cumsum(lengths) - lengths
    single = lengths == 1
    mask = np.zeros(len(values), np.bool_)
    mask[single] = found[starts[single]]
    return mask


def _spelled(values: pa.Array, flat: pa.Array) -> Mask | None:
    lengths = _lengths(values)
    candidates = np.flatnonzero(lengths == len(CODES))
    if not len(candidates):
        return None
    numbers = flat.fill_null(0).to_numpy(zero_copy_only=False)
    starts = (np.cumsum(lengths) - lengths)[candidates]
    spelled = numbers[starts[:, None] + np.arange(len(CODES))] == np.array(CODES)
    mask = np.zeros(len(values), np.bool_)
    mask[candidates] = spelled.all(axis=1)
    return mask


def _lengths(values: pa.Array) -> slices.Ints:
    if pa.types.is_map(values.type):
        values = values.cast(pa.list_(pa.struct([values.type.key_field, values.type.item_field])))
    return np.asarray(pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False), np.int64)

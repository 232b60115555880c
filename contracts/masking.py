"""What each mask needs and may hide: its key, the types it takes, and whether two values stay two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from contracts.faults import Faults, Place
from contracts.model import Mask
from contracts.types import ColumnType
from contracts.values import bound, is_day, is_number, is_scalar, is_text


@dataclass(frozen=True)
class MaskKind:
    """One kind of mask, as contracts may name it."""

    holds: str  # what is stored, one sentence for the documents
    arguments: str  # for the documents
    needs_key: bool
    takes: Callable[[ColumnType], bool]
    taken: str  # the types in words
    on_keys: bool = False  # deterministic, and no two values become one
    repeatable: bool = True  # the same value becomes the same token


MASK_KINDS: dict[str, MaskKind] = {
    "drop": MaskKind("Nothing: the column reaches no table.", "", False, lambda _: True, "any"),
    "constant": MaskKind("The given value, or null.", "`value`", False, is_scalar, "any but arrays and points"),
    "keep_first": MaskKind(
        "The first n characters, the rest as fill characters; all fill for n or fewer.",
        "`n`, `fill` (default `*`)", False, is_text, "text",
    ),
    "keep_last": MaskKind(
        "The last n characters, the rest as fill characters; all fill for n or fewer.",
        "`n`, `fill` (default `*`)", False, is_text, "text",
    ),
    "hash": MaskKind(
        "HMAC-SHA-256 in full, as text: equal values stay equal, nothing leads back.",
        "`keyId`", True, lambda _: True, "any", on_keys=True,
    ),
    "email_hash": MaskKind("The local part hashed, the domain kept.", "`keyId`", True, is_text, "text"),
    "tokenise": MaskKind(
        "AES-SIV, as text: equal values stay equal, the key leads back.",
        "`keyId`", True, lambda _: True, "any", on_keys=True,
    ),
    "encrypt": MaskKind(
        "AES-GCM, as text: equal values differ, the key leads back.",
        "`keyId`", True, lambda _: True, "any", repeatable=False,
    ),
    "fpe_digits": MaskKind(
        # What has fewer than six digits cannot be encrypted; udfs.rules quarantines rows with such a key.
        "FF1 on the digits: other digits in the same places, the key leads back; all `*` for fewer than six digits.",
        "`keyId`", True, lambda c: is_text(c) or bool(pa.types.is_integer(c.arrow)), "text, integers", on_keys=True,
    ),
    "truncate_date": MaskKind(
        "The first day of the month or year, or the day.", "`to`: `day`, `month`, `year`", False, is_day,
        "dates, timestamps",
    ),
    "round_number": MaskKind(
        "The nearest multiple of a number.", "`to`: a number above 0", False, is_number, "numbers but bare `numeric`"
    ),
}  # fmt: skip


def read_mask(written: dict[str, Any], column: ColumnType, keyed: bool, place: Place, faults: Faults) -> Mask:
    """Give the mask of one column; notes what does not fit the column's type or its part in the key."""
    name = written["kind"]
    kind = MASK_KINDS[name]
    arguments = {key: value for key, value in written.items() if key not in ("kind", "keyId")}
    if name in ("keep_first", "keep_last"):
        arguments.setdefault("fill", "*")
    if not kind.takes(column):
        faults.add(place, f"the mask {name!r} does not fit the type {column.name}", f"It takes {kind.taken}")
    elif name == "constant" and arguments["value"] is not None:
        arguments["value"] = _constant(arguments["value"], column, place, faults)
    if keyed and not kind.on_keys:
        fitting = ", ".join(sorted(other for other, kind in MASK_KINDS.items() if kind.on_keys))
        faults.add(place, f"the mask {name!r} would make keys equal or unequal that are not", f"Keys take {fitting}")
    return Mask(name, arguments, written.get("keyId"))


def _constant(value: Any, column: ColumnType, place: Place, faults: Faults) -> Any:
    try:
        return bound(value, column)
    except ValueError as error:
        faults.add((*place, "value"), str(error), "Write a value of the column's type, or null")
        return None

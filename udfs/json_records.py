"""One JSON record at a time: what the vectorised reader refused, read with the same outcome or refused with a reason.

Duplicate names: the last one wins. A missing field is null. Doubles may be the text NaN, Infinity or -Infinity.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson
import pyarrow as pa

from udfs.placeholders import unsent

Json = Any

UNDECODABLE = "undecodable"
_INT64 = range(-(2**63), 2**63)
_SPECIAL = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class NotReadable(Exception):  # noqa: N818 (control flow inside the decoder; never leaves it)
    """A record that is refused: at which stage, by which rule, and why."""

    def __init__(self, stage: str, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.stage, self.rule, self.reason = stage, rule, reason


def parse(value: bytes, exact: bool) -> dict[str, Json] | None:
    """Give a record's top-level object, None for null; `exact` reads fractions as Decimal. Raises NotReadable."""
    try:
        parsed = orjson.loads(value)
        if exact:
            parsed = json.loads(value, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise NotReadable("decode", UNDECODABLE, "the value is not valid JSON") from None
    if parsed is not None and not isinstance(parsed, dict):
        raise NotReadable("decode", UNDECODABLE, "the value is not a JSON object")
    return parsed


def shaped(
    record: dict[str, Json],
    schema: pa.Schema,
    images: Collection[str] = (),
    lenient: Collection[str] = (),
    unasked: Collection[str] = (),
) -> tuple[dict[str, Json], list[str]]:
    """Bring a record into the types of a schema; gives the columns whose value is of another type, too, left null.

    Columns stand at the top level, or in the structs named `images`; those of `unasked` images are not given. In
    `lenient` fields any value may be left null. Raises NotReadable when an image is no struct.
    """
    wrong: dict[str, None] = {}
    whole = {f.name: _image(record.get(f.name), f, images, lenient, {} if f.name in unasked else wrong) for f in schema}
    return whole, list(wrong)


def _image(
    value: Json, field: pa.Field, images: Collection[str], lenient: Collection[str], wrong: dict[str, None]
) -> Json:
    if field.name not in images:
        return _column(value, field, wrong if field.name not in lenient else {}, field.name in lenient)
    if value is None:
        return None
    if not isinstance(value, dict):
        reason = f"a value in {field.name} is not of the type the contract declares"
        raise NotReadable("normalise", f"wrong_type:{field.name}", reason)
    return {f.name: _column(value.get(f.name), f, wrong) for f in field.type}


def _column(value: Json, field: pa.Field, wrong: dict[str, None], lenient: bool = False) -> Json:
    try:
        return _typed(value, field.type, lenient)
    except _OtherTypeError:
        wrong[field.name] = None
        return None


def unknown(record: dict[str, Json], known: Collection[str]) -> str | None:
    """Give the JSON text of the fields that are not known and were sent; None when there are none."""
    rest = {name: value for name, value in record.items() if name not in known and not unsent(value)}
    return text(rest) if rest else None


def text(value: Json) -> str:
    """Write JSON text; numbers read exactly keep their digits."""
    try:
        return orjson.dumps(value, default=_fragment).decode()
    except TypeError:  # an integer beyond 64 bits
        return orjson.dumps(_wide(value), default=_fragment).decode()


def _wide(value: Json) -> Json:
    """Give the value with its integers as decimals, which keep all their digits."""
    if isinstance(value, dict):
        return {name: _wide(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_wide(inner) for inner in value]
    return Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _fragment(number: Decimal) -> orjson.Fragment:
    return orjson.Fragment(str(number))


class _OtherTypeError(Exception):
    pass


def _typed(value: Json, kind: pa.DataType, lenient: bool) -> Json:
    if value is None:
        return None
    if pa.types.is_struct(kind):
        return _struct(value, kind, lenient)
    if pa.types.is_list(kind):
        if not isinstance(value, list):
            raise _OtherTypeError
        return [_typed(v, kind.value_type, lenient) for v in value]
    return _scalar(value, kind)


def _struct(value: Json, kind: pa.StructType, lenient: bool) -> Json:
    if not isinstance(value, dict):
        raise _OtherTypeError
    return {f.name: _child(value.get(f.name), f.type, lenient) for f in kind}


def _child(value: Json, kind: pa.DataType, lenient: bool) -> Json:
    try:
        return _typed(value, kind, lenient)
    except _OtherTypeError:
        if lenient:
            return None
        raise


def _scalar(value: Json, kind: pa.DataType) -> Json:
    if pa.types.is_integer(kind):
        if isinstance(value, int) and not isinstance(value, bool) and value in _INT64:
            return value
    elif pa.types.is_floating(kind):
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str) and value in _SPECIAL:
            return _SPECIAL[value]
    elif pa.types.is_boolean(kind):
        if isinstance(value, bool):
            return value
    elif pa.types.is_decimal(kind):
        return _decimal(value, kind)
    elif isinstance(value, str):
        return value
    elif isinstance(value, dict | list):
        return text(value)
    raise _OtherTypeError


def _decimal(value: Json, kind: pa.DataType) -> Decimal:
    """Give the exact number, with the type's scale; a lossy one is of another type."""
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise _OtherTypeError
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise _OtherTypeError from None
    if not number.is_finite() or not _fits(number, kind):
        raise _OtherTypeError
    return number


def _fits(number: Decimal, kind: pa.DataType) -> bool:
    exponent = number.normalize().as_tuple().exponent if len(number.as_tuple().digits) < 28 else _exponent(number)
    return bool(-int(exponent) <= kind.scale and number.adjusted() < kind.precision - kind.scale)


def _exponent(number: Decimal) -> int:
    """Give the exponent after trailing zeros, of a number with more digits than the context keeps."""
    digits, exponent = number.as_tuple().digits, int(number.as_tuple().exponent)
    trailing = len(digits) - len("".join(map(str, digits)).rstrip("0"))
    return exponent + trailing if any(digits) else 0

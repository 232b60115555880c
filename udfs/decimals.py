"""Exact decimals: big-endian two's complement bytes to decimal columns and to text, never through a double.

Debezium and Avro send the unscaled value as bytes; its scale comes from the schema (Connect Decimal, Avro decimal) or
stands beside each value (io.debezium.data.VariableScaleDecimal).
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation, localcontext

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contracts.types import MAX_DECIMAL_DIGITS
from udfs import slices
from udfs.converted import Converted, Mask, refused

_WIDEST = 16  # bytes of a decimal128
_LIMIT_HIGH, _LIMIT_LOW = divmod(10**MAX_DECIMAL_DIGITS, 1 << 64)


def from_bytes(unscaled: pa.BinaryArray, sent_scale: int, stored: pa.Decimal128Type) -> Converted:
    """Give decimals of the stored type from unscaled values sent with one scale; a lossy rescale is refused."""
    words, wrong = _words(unscaled)
    sent = _decimals(words, unscaled, pa.decimal128(MAX_DECIMAL_DIGITS, sent_scale))
    sent_right = refused(sent, wrong)
    if sent_scale == stored.scale:
        return sent_right
    return _with(rescale(sent_right.values, stored), wrong)


def rescale(values: pa.Array, stored: pa.DataType) -> Converted:
    """Give decimals with another scale, refusing those that would lose digits."""
    try:
        return Converted(pc.cast(values, stored))
    except pa.ArrowInvalid:
        return from_decimals(values.to_pylist(), stored)


def from_decimals(values: list[Decimal | None], stored: pa.Decimal128Type) -> Converted:
    """Give decimals of the stored type one by one: only for a column in which some value does not fit."""
    fitted = [None if v is None else _fit(v, stored.scale) for v in values]
    wrong = np.array([v is not None and f is None for v, f in zip(values, fitted, strict=True)], np.bool_)
    return Converted(pa.array(fitted, stored), None, wrong if wrong.any() else None)


def text(unscaled: pa.BinaryArray, scales: npt.NDArray[np.int64]) -> Converted:
    """Give the plain decimal text (no exponent) of unscaled values with a scale each."""
    words, wide = _words(unscaled)
    if wide is not None or bool((np.abs(scales) > MAX_DECIMAL_DIGITS).any()):
        return _text_one_by_one(unscaled, scales)
    digits = pc.cast(_decimals(words, unscaled, pa.decimal128(MAX_DECIMAL_DIGITS, 0)), pa.string())
    if not scales.any():
        return Converted(digits)
    parts = [_scaled(digits.filter(slices.marks(scales == s)), int(s)) for s in np.unique(scales)]
    order = np.concatenate([np.flatnonzero(scales == s) for s in np.unique(scales)])
    return Converted(pa.concat_arrays(parts).take(pa.array(np.argsort(order))))


def parse(value: str) -> Decimal | None:
    """Give the finite number a text means, or None."""
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number.adjusted()) < 1 << 17 else None


def canonical(value: Decimal) -> str:
    """Give a number's plain text without an exponent and without trailing zeros in its fraction."""
    written = format(value, "f")
    return written.rstrip("0").rstrip(".") if "." in written else written


def _scaled(digits: pa.StringArray, scale: int) -> pa.StringArray:
    """Put the decimal point `scale` digits from the right."""
    if scale == 0:
        return digits
    negative = pc.starts_with(digits, "-")
    plain = pc.utf8_ltrim(digits, characters="-")
    if scale < 0:
        plain = pc.if_else(pc.equal(plain, "0"), "0", pc.binary_join_element_wise(plain, "0" * -scale, ""))
    else:
        padded = pc.utf8_lpad(plain, width=scale + 1, padding="0")
        whole = pc.utf8_slice_codeunits(padded, 0, -scale)
        plain = pc.binary_join_element_wise(whole, pc.utf8_slice_codeunits(padded, -scale), ".")
    return pc.binary_join_element_wise(pc.if_else(negative, "-", ""), plain, "")


def _text_one_by_one(unscaled: pa.BinaryArray, scales: npt.NDArray[np.int64]) -> Converted:
    """Numbers beyond 38 digits need Python's integers; they are rare (numeric without a precision)."""
    written: list[str | None] = []
    for value, scale in zip(unscaled.to_pylist(), scales.tolist(), strict=True):
        written.append(None if not value else _write(int.from_bytes(value, "big", signed=True), scale))
    wrong = np.array([w is None for w in written], np.bool_) & slices.valid(unscaled)
    return refused(pa.array(written, pa.string()), wrong)


def _write(unscaled: int, scale: int) -> str | None:
    # PostgreSQL's numeric ends at 131072 digits before and 16383 after the point.
    if abs(scale) > 1 << 18 or unscaled.bit_length() > 1 << 20:
        return None
    sign, digits = ("-" if unscaled < 0 else ""), format(Decimal(abs(unscaled)), "f")
    if scale <= 0:
        return sign + (digits + "0" * -scale if unscaled else digits)
    digits = digits.rjust(scale + 1, "0")
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}"


def _words(unscaled: pa.BinaryArray) -> tuple[npt.NDArray[np.int64], Mask | None]:
    """Give the values as little-endian pairs of 64-bit words, and a mask of those that have no 38-digit form."""
    bounds = slices.offsets(unscaled)
    starts, ends = bounds[:-1], bounds[1:]
    lengths = ends - starts
    held = slices.data(unscaled)
    words = np.zeros((len(unscaled), 2), np.int64)
    if not len(held) or not len(unscaled):
        return words, _mask(slices.valid(unscaled))
    negative = held[np.minimum(starts, len(held) - 1)] >= 0x80
    width = int(min(lengths.max(), _WIDEST))
    words[:, 0] = _word(held, bounds, negative, 0, min(width, 8))
    words[:, 1] = _word(held, bounds, negative, 8, width) if width > 8 else words[:, 0] >> 63
    wrong = (lengths == 0) | (lengths > _WIDEST)
    if width == _WIDEST:
        wrong |= _beyond(words)
    return words, _mask(wrong & slices.valid(unscaled))


def _word(held: slices.Bytes, bounds: slices.Ints, negative: Mask, first: int, last: int) -> npt.NDArray[np.int64]:
    """Assemble the bytes first..last, counted from the right, of each value; shorter values extend their sign."""
    ends, lengths = bounds[1:], np.diff(bounds)
    fill = np.where(negative, np.uint8(0xFF), np.uint8(0))
    word = np.zeros(len(ends), np.uint64)
    for place in range(first, last):
        # A value's bytes left of its first one are its sign; the index is only kept within bounds.
        byte = np.where(place < lengths, held[np.maximum(ends - 1 - place, 0)], fill)
        word |= byte.astype(np.uint64) << np.uint64(8 * (place - first))
    unused = 64 - 8 * (last - first)
    return (word << np.uint64(unused)).view(np.int64) >> unused


def _beyond(words: npt.NDArray[np.int64]) -> Mask:
    """Tell which 128-bit values have more than 38 digits."""
    low, high = words[:, 0].view(np.uint64), words[:, 1]
    above = (high > _LIMIT_HIGH) | ((high == _LIMIT_HIGH) & (low >= np.uint64(_LIMIT_LOW)))
    floor = np.uint64((1 << 64) - _LIMIT_LOW)
    below = (high < -_LIMIT_HIGH - 1) | ((high == -_LIMIT_HIGH - 1) & (low <= floor))
    return np.asarray(above | below, np.bool_)


def _decimals(words: npt.NDArray[np.int64], like: pa.Array, stored: pa.DataType) -> pa.Decimal128Array:
    validity = like.is_valid().buffers()[1] if like.null_count else None
    return pa.Decimal128Array.from_buffers(stored, len(like), [validity, pa.py_buffer(np.ascontiguousarray(words))])


def _fit(value: Decimal, scale: int) -> Decimal | None:
    """Give the value with exactly `scale` digits after the point, or None when that loses something."""
    with localcontext() as context:
        context.prec = 2 * MAX_DECIMAL_DIGITS
        if not value.is_finite() or value.adjusted() > MAX_DECIMAL_DIGITS:
            return None
        if value.adjusted() < -2 * MAX_DECIMAL_DIGITS and value:
            return None
        fitted = value.quantize(Decimal(1).scaleb(-scale))
    return fitted if fitted == value and len(fitted.as_tuple().digits) <= MAX_DECIMAL_DIGITS else None


def _with(converted: Converted, wrong: Mask | None) -> Converted:
    if wrong is None:
        return converted
    both = wrong if converted.wrong is None else wrong | converted.wrong
    return Converted(converted.values, converted.flags, both)


def _mask(wrong: Mask) -> Mask | None:
    return wrong if wrong.any() else None

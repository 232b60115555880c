"""Masks that keep a value's type and take away its detail, or part of its text."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contracts.types import MAX_DECIMAL_DIGITS
from udfs.arrays import any_true, is_ascii

LARGEST_INTEGER = 2**63 - 1
END = 2**31 - 1  # past the end of any text
_EXACT = Context(prec=2 * MAX_DECIMAL_DIGITS)


def constant(values: pa.Array, value: Any) -> pa.Array:
    """Give the same value, of the column's type, for every value that is not null."""
    fixed = pa.scalar(value, values.type)
    return pc.if_else(values.is_valid(), fixed, pa.scalar(None, values.type))


def keep_first(texts: pa.StringArray, n: int, fill: str) -> pa.StringArray:
    """Give the first n characters and one `fill` for each one after; a text of n or fewer becomes all fill."""
    return _keep(texts, n, fill, first=True)


def keep_last(texts: pa.StringArray, n: int, fill: str) -> pa.StringArray:
    """Give the last n characters and one `fill` for each one before; a text of n or fewer becomes all fill."""
    return _keep(texts, n, fill, first=False)


def _keep(texts: pa.StringArray, n: int, fill: str, first: bool) -> pa.StringArray:
    ascii_only = is_ascii(texts)
    length = pc.binary_length(texts) if ascii_only else pc.utf8_length(texts)
    hidden = pc.subtract(length, pa.scalar(n, pa.int32()))
    short = pc.less_equal(hidden, 0)
    if any_true(short):
        hidden = pc.if_else(short, length, hidden)
    if hidden.null_count:
        # The kernel reads what lies under a null as well.
        hidden = pc.fill_null(hidden, 0)
    fills = pc.binary_repeat(pa.scalar(fill), hidden)
    kept = _slice(texts, n, first, ascii_only)
    if any_true(short):
        kept = pc.if_else(short, "", kept)
    return pc.binary_join_element_wise(*((kept, fills) if first else (fills, kept)), "")


def _slice(texts: pa.StringArray, n: int, first: bool, ascii_only: bool) -> pa.StringArray:
    start, stop = (0, n) if first else (-n, END)
    if n == 0:
        start, stop = 0, 0
    if ascii_only:
        # Bytes are characters here, and cutting bytes is four times as fast.
        return pc.binary_slice(texts.view(pa.binary()), start, stop).view(pa.string())
    return pc.utf8_slice_codeunits(texts, start, stop)


def truncate_date(values: pa.Array, to: str) -> pa.Array:
    """Give the first moment of each value's year, month or day (in UTC)."""
    return pc.floor_temporal(values, unit=to)


def round_number(values: pa.Array, to: Any) -> pa.Array:
    """Give the nearest multiple of `to` (halves away from zero); never more than the type can hold."""
    if pa.types.is_floating(values.type):
        step = pa.scalar(float(to), values.type)
        return pc.round_to_multiple(values, multiple=step, round_mode="half_towards_infinity")
    if pa.types.is_decimal(values.type):
        return _round_decimal(values, Decimal(str(to)))
    return _round_integer(values, Decimal(str(to)))


def _round_integer(values: pa.Array, step: Decimal) -> pa.Array:
    """Round without passing through floating point, which would lose digits above 2^53."""
    if step != step.to_integral_value():
        # The multiples of 2.5 are not integers: the step is the next integer.
        step = step.to_integral_value(ROUND_HALF_UP) or Decimal(1)
    whole = int(step)
    if whole > LARGEST_INTEGER:
        return pc.multiply(values, 0)
    limit = LARGEST_INTEGER // whole * whole
    within = pc.min_element_wise(pc.max_element_wise(values, -limit, skip_nulls=False), limit, skip_nulls=False)
    below = pc.divide(within, whole)
    rest = pc.subtract(within, pc.multiply(below, whole))
    away = pc.greater_equal(pc.abs(rest), whole - whole // 2)
    below = pc.if_else(away, pc.add(below, pc.sign(rest).cast(pa.int64())), below)
    return pc.multiply(below, whole)


def _round_decimal(values: pa.Array, step: Decimal) -> pa.Array:
    scale = values.type.scale
    whole = max(int(step.scaleb(scale, _EXACT).to_integral_value(ROUND_HALF_UP, _EXACT)), 1)
    largest = 10**MAX_DECIMAL_DIGITS - 1
    whole = min(whole, largest)  # no multiple but zero is small enough
    limit = Decimal(largest // whole * whole).scaleb(-scale, _EXACT)
    low, high = pa.scalar(limit.copy_negate(), values.type), pa.scalar(limit, values.type)
    within = pc.if_else(pc.less(values, low), low, pc.if_else(pc.greater(values, high), high, values))
    multiple = pa.scalar(Decimal(whole).scaleb(-scale, _EXACT), values.type)
    return pc.round_to_multiple(within, multiple=multiple, round_mode="half_towards_infinity")

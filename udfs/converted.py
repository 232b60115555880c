"""The result of reading one column: stored values, and where a value could not be stored or not be read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from udfs import slices

Mask = npt.NDArray[np.bool_]

INFINITY = "infinity"
OUT_OF_RANGE = "out_of_range"
NOT_SENT = "not_sent"  # of a column that the source computes and leaves out of its stream


@dataclass(frozen=True)
class Converted:
    """One column as stored, null where `flags` or `wrong` says why."""

    values: pa.Array
    flags: pa.StringArray | None = None  # reason of a value that is real but cannot be stored
    wrong: Mask | None = None  # true: the value is not of the declared type at all


def flagged(values: pa.Array, infinite: Mask | None = None, outside: Mask | None = None) -> Converted:
    """Give the values with null and a reason where a mask is true; infinite wins over outside."""
    both = ((outside, OUT_OF_RANGE), (infinite, INFINITY))
    reasons = [(mask, reason) for mask, reason in both if mask is not None and mask.any()]
    if not reasons:
        return Converted(values)
    flags = pa.nulls(len(values), pa.string())
    for mask, reason in reasons:
        flags = pc.if_else(slices.marks(mask), reason, flags)
    return Converted(without(values, slices.mask_of(flags.is_valid())), flags)


def refused(values: pa.Array, wrong: Mask | None, flags: pa.StringArray | None = None) -> Converted:
    """Give the values with null where they are not of the declared type."""
    if not _any(wrong):
        return Converted(values, flags)
    return Converted(without(values, wrong), flags, wrong)


def all_wrong(values: pa.Array, stored: pa.DataType) -> Converted:
    """Give a column none of whose values is of the declared type."""
    wrong = slices.valid(values)
    return Converted(pa.nulls(len(values), stored), None, wrong if wrong.any() else None)


def without(values: pa.Array, mask: Mask | None) -> pa.Array:
    """Give the values with null where the mask is true."""
    if mask is None or not mask.any():
        return values
    if pa.types.is_nested(values.type):
        # if_else does not take every nested type: a null index does the same.
        return values.take(pa.array(np.arange(len(values)), mask=mask))
    return pc.if_else(slices.marks(mask), pa.scalar(None, values.type), values)


def _any(mask: Mask | None) -> bool:
    return mask is not None and bool(mask.any())

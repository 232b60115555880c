"""The measures that an aggregate can hold: a function of whole rows or of one column, as contracts name it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from contracts.model import Measure
from contracts.types import MAX_DECIMAL_DIGITS

_WRITTEN = re.compile(r"\s*([a-z_]+)\s*\(\s*(?:([^(),]+?)\s*(?:,\s*([0-9.]+)\s*)?)?\)\s*")


@dataclass(frozen=True)
class Function:
    """One function, as contracts may name it."""

    holds: str  # one sentence for the documents
    takes: Callable[[pa.DataType], bool]
    taken: str
    gives: Callable[[pa.DataType], pa.DataType]
    retracts: bool  # whether a row can be taken back out of it
    whole: bool = False  # may stand without a column
    argument: bool = False  # a number between 0 and 1


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_ordered(kind: pa.DataType) -> bool:
    return bool(_is_number(kind) or pa.types.is_temporal(kind) or pa.types.is_string(kind))


def _is_scalar(kind: pa.DataType) -> bool:
    return not pa.types.is_nested(kind)


def _summed(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_floating(kind):
        return pa.float64()
    return pa.decimal128(MAX_DECIMAL_DIGITS, kind.scale if pa.types.is_decimal(kind) else 0)


FUNCTIONS: dict[str, Function] = {
    "count": Function("Rows, or rows in which the column is not null.", lambda _: True, "nothing, or any",
                      lambda _: pa.int64(), True, whole=True),
    "sum": Function("The exact sum; of `real` and `double precision` as floating point adds up.", _is_number,
                    "numbers", _summed, True),
    "avg": Function("The sum divided by the count.", _is_number, "numbers", lambda _: pa.float64(), True),
    "min": Function("The smallest value.", _is_ordered, "numbers, dates, timestamps, text", lambda kind: kind, False),
    "max": Function("The largest value.", _is_ordered, "numbers, dates, timestamps, text", lambda kind: kind, False),
    "approx_distinct": Function(
        "About how many different values: an HLL sketch of Apache DataSketches, 1.6 % off as a rule.", _is_scalar,
        "any but arrays and points", lambda _: pa.int64(), False,
    ),
    "approx_quantile": Function(
        "About which value that share of the others lies below: a KLL sketch, 1.7 % of the ranks off at most.",
        _is_number, "numbers, and a share such as `0.95`", lambda _: pa.float64(), False, argument=True,
    ),
}  # fmt: skip


def parse_measure(name: str, written: str) -> Measure:
    """Give a measure written as `function(column)`; raises ValueError when it is none."""
    found = _WRITTEN.fullmatch(written)
    if not found:
        raise ValueError(f"{written!r} is no measure such as `count()` or `sum(amount)`")
    function, column, argument = found[1], found[2], found[3]
    if function not in FUNCTIONS:
        raise ValueError(f"unknown function {function!r}; known are {', '.join(FUNCTIONS)}")
    known = FUNCTIONS[function]
    if column is None and not known.whole:
        raise ValueError(f"{function} is of a column, such as `{function}(amount)`")
    if known.argument != (argument is not None):
        needs = "a share, such as `approx_quantile(amount, 0.95)`" if known.argument else "no number"
        raise ValueError(f"{function} takes {needs}")
    share = None if argument is None else float(argument)
    if share is not None and not 0 <= share <= 1:
        raise ValueError(f"a share is between 0 and 1, not {argument}")
    return Measure(name, function, column and column.strip('"'), share)

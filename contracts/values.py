"""What a column type stores, asked in words, and the values that contracts write for it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from contracts.types import ColumnType


def is_text(column: ColumnType) -> bool:
    """Whether a column is stored as text whose characters mean something."""
    return bool(column.arrow == pa.string())


def is_scalar(column: ColumnType) -> bool:
    """Whether a column holds one value a row, neither a list nor a structure."""
    return not pa.types.is_nested(column.arrow)


def is_number(column: ColumnType) -> bool:
    """Whether a column is stored as a number."""
    kind = column.arrow
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def is_day(column: ColumnType) -> bool:
    """Whether a column is stored as a date or a timestamp."""
    return bool(pa.types.is_date(column.arrow) or pa.types.is_timestamp(column.arrow))


def is_words(column: ColumnType) -> bool:
    """Whether a column is text that is not a number written out."""
    return is_text(column) and column.name != "numeric"


def is_ordered(column: ColumnType) -> bool:
    """Whether a column's values have an order that a bound can cut."""
    return is_number(column) or is_day(column)


def is_bounded(column: ColumnType) -> bool:
    """Whether a minimum and a maximum mean something: as is_ordered, and exact decimal text is a number too."""
    return is_ordered(column) or column.name == "numeric"


def is_long(column: ColumnType) -> bool:
    """Whether a column's values have a length: characters, bytes or items."""
    kind = column.arrow
    return is_words(column) or bool(pa.types.is_binary(kind) or pa.types.is_list(kind))


def is_listed(column: ColumnType) -> bool:
    """Whether a column's values can be listed in a contract."""
    return is_scalar(column) and column.arrow != pa.binary()


def bound(value: Any, column: ColumnType) -> Any:
    """Give a written value as the Python value of a column's type; raises ValueError when it is not one."""
    kind = column.arrow
    wrong = ValueError(f"the value {value!r} is no {column.name}")
    try:
        if pa.types.is_boolean(kind):
            result: Any = value if isinstance(value, bool) else None
        elif isinstance(value, bool):
            result = None
        elif pa.types.is_integer(kind):
            result = int(value) if not isinstance(value, str) and int(value) == value else None
        elif pa.types.is_decimal(kind):
            result = Decimal(str(value))
        elif pa.types.is_floating(kind):
            result = None if isinstance(value, str) else float(value)
        elif pa.types.is_date(kind):
            result = dt.date.fromisoformat(value)
        elif pa.types.is_timestamp(kind):
            result = _moment(dt.datetime.fromisoformat(value), zoned=kind.tz is not None)
        else:
            result = value if isinstance(value, str) else None
        if result is None:
            raise wrong
        pa.scalar(result, kind)
    except (ValueError, TypeError, OverflowError, InvalidOperation, pa.ArrowException):
        raise wrong from None
    return result


def limit(value: Any, column: ColumnType) -> Any:
    """Give a written minimum or maximum; a number may be finer than the column's type. Raises ValueError."""
    if is_day(column):
        return bound(value, column)
    if isinstance(value, bool | str) or not Decimal(str(value)).is_finite():
        raise ValueError(f"the value {value!r} is no number")
    return value if isinstance(value, int) else Decimal(str(value))


def _moment(moment: dt.datetime, zoned: bool) -> dt.datetime:
    """Give a moment as the type stores it: in UTC where it has a zone (UTC when none is written), else without."""
    if not zoned:
        return moment.replace(tzinfo=None)
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)

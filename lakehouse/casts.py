"""What values of one column type are in another one: exactly themselves, or refused. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from lakehouse.merge.data_files import partition_scalar, partition_texts

Cast = Callable[[pa.Array, pa.DataType], pa.Array]  # raises pa.ArrowInvalid for a value that would become another
Text = Callable[[pa.Array], pa.Array]  # gives values' canonical text
Kind = Callable[[pa.DataType], bool]
_WIDE = 76  # digits of the widest decimal


class Loss(Exception):  # noqa: N818 (the name says what is)
    """A value of a column would become another one."""

    def __init__(self, column: str, row: int) -> None:
        super().__init__(f"column {column}, row {row}")
        self.column, self.row = column, row


def cast_between(old: pa.DataType, new: pa.DataType, text: Text) -> Cast | None:
    """Give how values of a type become those of another; None where no rule keeps them what they are."""
    if pa.types.is_string(new):
        return None if pa.types.is_string(old) else lambda values, _: text(values)
    return next((cast for was, becomes, cast in CASTS if was(old) and becomes(new)), None)


def converted(rows: pa.Table, columns: pa.Schema, text: Text) -> pa.Table:
    """Give rows with other columns: the same values, null where a column is new.

    Raises Loss for the first row with a value that would become another one, ValueError for types without a cast.
    """
    made = []
    for field in columns:
        if field.name not in rows.column_names:
            made.append(pa.nulls(len(rows), field.type))
        elif rows[field.name].type == field.type:
            made.append(rows[field.name])
        else:
            made.append(_cast(field.name, rows[field.name].combine_chunks(), field.type, text))
    return pa.Table.from_arrays(made, schema=columns)


def verify_partition(rows: pa.Table, names: Sequence[str]) -> None:
    """Raise Loss when a value of a partition column would come back from the log as another one."""
    for name in names:
        values = rows[name].combine_chunks()
        distinct = values.unique()
        try:
            texts = partition_texts(pa.chunked_array([distinct])).to_pylist()
            back = [partition_scalar(one, values.type).as_py() for one in texts]
        except pa.ArrowException:  # a binary value that is no text
            back = [None] * len(distinct)
        for place, value in enumerate(distinct.to_pylist()):
            if value != back[place]:
                raise Loss(name, values.index(distinct[place]).as_py())


def _cast(name: str, values: pa.Array, kind: pa.DataType, text: Text) -> pa.Array:
    cast = cast_between(values.type, kind, text)
    if cast is None:
        raise ValueError(f"column {name} cannot go from {values.type} to {kind}")
    try:
        return cast(values, kind)
    except pa.ArrowInvalid:
        raise Loss(name, _first_lost(values, kind, cast)) from None


def _first_lost(values: pa.Array, kind: pa.DataType, cast: Cast) -> int:
    """Give the first value that does not become one of the type, by halving."""
    low, high = 0, len(values)  # the first is at or after low, and before high
    while high - low > 1:
        middle = (low + high) // 2
        try:
            cast(values[low:middle], kind)
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low


def _exact(values: pa.Array, kind: pa.DataType) -> pa.Array:
    return values.cast(kind)


def _to_decimal(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast by way of the widest decimal: Arrow else judges an integer by its type's digits, not by its own."""
    whole = pa.types.is_integer(values.type)
    return (values.cast(pa.decimal256(_WIDE, kind.scale)) if whole else values).cast(kind)


def _is_naive(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind)) and kind.tz is None


CASTS: tuple[tuple[Kind, Kind, Cast], ...] = (
    (pa.types.is_integer, pa.types.is_integer, _exact),
    (pa.types.is_integer, pa.types.is_decimal, _to_decimal),
    (pa.types.is_integer, pa.types.is_float64, _exact),
    (pa.types.is_decimal, pa.types.is_decimal, _to_decimal),
    (pa.types.is_float32, pa.types.is_float64, _exact),
    (pa.types.is_date32, _is_naive, _exact),
)

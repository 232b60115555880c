"""The columns of a table of aggregates: <stream>_<name>."""

from __future__ import annotations

import pyarrow as pa

from contracts.aggregates import row_types
from contracts.measures import FUNCTIONS
from contracts.model import Aggregate, Contract, Measure, Over
from contracts.types import MICROS_UTC

BOUNDS = ("window_start", "window_end")
META = pa.schema(
    [
        ("_complete", pa.bool_()),  # the watermark has passed the window's end
        ("_updated_at", MICROS_UTC),
        ("_rows", pa.int64()),  # counted
    ]
)


def aggregate_schema(contract: Contract, aggregate: Aggregate) -> pa.Schema:
    """Give a table's schema: bounds, group, measures, META, then what measures are put together of."""
    types = row_types(contract, aggregate.over)
    bounds = [pa.field(name, MICROS_UTC) for name in BOUNDS]
    groups = [pa.field(name, types[name]) for name in aggregate.group_by]
    values = [pa.field(m.name, measured_type(types, m)) for m in aggregate.measures]
    hidden = [
        field for m in aggregate.measures for field in states_of(types, m, aggregate.over) if field.name != m.name
    ]
    return pa.schema([*bounds, *groups, *values, *META, *hidden])


def measured_type(types: dict[str, pa.DataType], measure: Measure) -> pa.DataType:
    """Give the type of a measure's values."""
    kind = pa.null() if measure.column is None else types[measure.column]
    return FUNCTIONS[measure.function].gives(kind)


def states_of(types: dict[str, pa.DataType], measure: Measure, over: Over) -> list[pa.Field]:
    """Give the columns of which a measure is put together; one of its own name is its value too."""
    name, value = measure.name, pa.field(measure.name, measured_type(types, measure))
    if measure.function == "avg":
        summed = FUNCTIONS["sum"].gives(types[str(measure.column)])
        return [pa.field(f"_{name}_sum", summed), pa.field(f"_{name}_count", pa.int64())]
    if measure.function.startswith("approx_"):
        return [pa.field(f"_{name}_sketch", pa.binary())]
    if measure.function == "sum" and over is Over.CURRENT:
        return [value, pa.field(f"_{name}_count", pa.int64())]  # a sum of nothing is null
    return [value]

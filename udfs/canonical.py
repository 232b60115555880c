"""The one text form of a value, which masks that make text start from.

Text as it is; integers and decimals in plain digits, decimals with all digits of their scale; floats in the shortest
form that reads back; booleans true and false; dates 2024-01-31; timestamps 2024-01-31T12:00:00.000000, with Z when
they are in UTC; binary values in lower-case hex; arrays and points as JSON.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

PLAIN_SCALE = 6  # up to this scale Arrow writes decimals without an exponent


def canonical_text(values: pa.Array) -> pa.StringArray:
    """Give each value's canonical text; null stays null."""
    kind = values.type
    if pa.types.is_string(kind):
        return values
    if pa.types.is_timestamp(kind):
        return pc.replace_substring(pc.cast(values, pa.string()), " ", "T")
    if pa.types.is_binary(kind):
        return hex_text(values)
    if pa.types.is_nested(kind) or (pa.types.is_decimal(kind) and kind.scale > PLAIN_SCALE):
        return _one_by_one(values)
    return pc.cast(values, pa.string())


def hex_text(values: pa.BinaryArray) -> pa.StringArray:
    """Give binary values in lower-case hex."""
    if not len(values):
        return pa.array([], pa.string())
    offsets = np.frombuffer(values.buffers()[1], np.int32, len(values) + 1, values.offset * 4)
    data = values.buffers()[2]
    held = memoryview(data)[offsets[0] : offsets[-1]] if data is not None else memoryview(b"")
    text = pa.StringArray.from_buffers(
        len(values), pa.py_buffer((offsets - offsets[0]) * np.int32(2)), pa.py_buffer(held.hex().encode())
    )
    return pc.if_else(values.is_valid(), text, pa.scalar(None, pa.string())) if values.null_count else text


def json_value(value: Any) -> Any:
    """Give a Python value (from an Arrow array) as JSON can write it; for `json.dumps(default=...)` too."""
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)


def json_objects(rows: pa.Table) -> pa.StringArray:
    """Give each row as a JSON object, its columns in order. For few rows: Arrow writes no JSON."""
    option = orjson.OPT_PASSTHROUGH_DATETIME
    written = [orjson.dumps(_finite(row), default=json_value, option=option) for row in rows.to_pylist()]
    return pa.array(written, pa.binary()).cast(pa.string())


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """Give a row with the numbers that JSON does not know as text: they would be null."""
    return {n: str(v) if isinstance(v, float) and not math.isfinite(v) else v for n, v in row.items()}


def _one_by_one(values: pa.Array) -> pa.StringArray:
    # Arrow has no kernel for either; arrays, points and decimals with more than six places are seldom private.
    if pa.types.is_decimal(values.type):
        texts = [None if v is None else format(v, "f") for v in values.to_pylist()]
    else:
        texts = [
            None if v is None else json.dumps(v, default=json_value, separators=(",", ":"), ensure_ascii=False)
            for v in values.to_pylist()
        ]
    return pa.array(texts, pa.string())

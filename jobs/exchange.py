"""Hand Arrow columns to our functions as they come from the JVM, without a detour through pandas objects.

PyFlink turns each Arrow column of a `func_type="pandas"` function into a pandas Series before the call. For BYTES that
makes one Python object a record, which refine would at once turn back. PyFlink has no setting for it, so the worker
replaces that one conversion; results still go through PyFlink's own (they are a handful of rows).
Decision: docs/architecture.md, "Arrow columns without pandas".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyflink.fn_execution import coder_impl_fast


def hand_over_arrow_columns() -> None:
    """Make PyFlink's Arrow coder give pyarrow arrays; call once in a worker, before its first batch."""
    coder_impl_fast.arrow_to_pandas = _columns


def _columns(_timezone: Any, _field_types: Sequence[Any], batches: Sequence[pa.RecordBatch]) -> list[pa.Array]:
    if len(batches) == 1:
        return list(batches[0].columns)
    return [column.combine_chunks() for column in pa.Table.from_batches(batches).columns]

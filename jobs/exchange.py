"""How a worker exchanges batches with the JVM: Arrow columns in, Arrow columns out, nothing copied on the way.

PyFlink turns each Arrow column of a `func_type="pandas"` function into a pandas Series before the call, and the result
back: for BYTES one Python object a record, which refine would at once turn back. It reads a batch through a file object
in Python that copies each buffer three times. Beam joins a thread that sleeps up to 200 ms at the end of every bundle,
to sample times that PyFlink never reports. None of this can be set; the worker replaces these four places.
Decision: docs/architecture.md, "Arrow columns without pandas".
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd


def exchange_arrow_columns() -> None:
    """Make PyFlink's Arrow coder give pyarrow arrays and take what `column_result` gives; call once in a worker."""
    from apache_beam.runners.worker.statesampler import StateSampler
    from pyflink.fn_execution import coder_impl_fast
    from pyflink.fn_execution.ResettableIO import ResettableIO

    pa.set_cpu_count(1)  # a slot is one core's worth of work: more threads only contend
    coder_impl_fast.arrow_to_pandas = _columns
    coder_impl_fast.pandas_to_arrow = _batch
    ResettableIO.read_buffer = _read_buffer
    StateSampler.start = _start_without_sampling  # type: ignore[method-assign]
    StateSampler.stop = _stop_without_sampling  # type: ignore[method-assign]


def column_result(texts: pa.StringArray) -> pd.Series[Any]:
    """Give a function's result as PyFlink wants it: a Series, which here only wraps the Arrow column."""
    import pandas as pd

    return pd.Series(texts, dtype=pd.ArrowDtype(pa.string()))


def first_row_result(text: str | None, rows: int) -> pd.Series[Any]:
    """Give one answer for a batch of so many rows: in the first, the others null."""
    return column_result(pa.concat_arrays([pa.array([text], pa.string()), pa.nulls(rows - 1, pa.string())]))


def _columns(_timezone: Any, _field_types: Sequence[Any], batches: Sequence[pa.RecordBatch]) -> list[pa.Array]:
    if len(batches) == 1:
        return list(batches[0].columns)
    return [column.combine_chunks() for column in pa.Table.from_batches(batches).columns]


def _batch(schema: pa.Schema, _timezone: Any, _field_types: Sequence[Any], results: Sequence[Any]) -> pa.RecordBatch:
    """Give `column_result`s as they are."""
    columns = [pa.array(result.array) for result in results]
    flat = [column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column for column in columns]
    return pa.RecordBatch.from_arrays(flat, schema=schema)


def _read_buffer(self: Any, size: int) -> pa.Buffer:
    """Give the next bytes of a batch in place; pyarrow prefers this method of a file object over `read`."""
    start = self._input_offset
    self._input_offset = min(start + size, self._size)
    return pa.py_buffer(self._input_bytes).slice(start, self._input_offset - start)


def _start_without_sampling(self: Any) -> None:
    from apache_beam.runners.worker.statesampler import set_current_tracker

    self.tracked_thread = threading.current_thread()
    set_current_tracker(self)  # type: ignore[no-untyped-call]
    self.started = True


def _stop_without_sampling(self: Any) -> None:
    from apache_beam.runners.worker.statesampler import set_current_tracker

    set_current_tracker(None)  # type: ignore[no-untyped-call]
    self.finished = True

"""Batches between the JVM and a worker: the private places of PyFlink and Beam that are replaced are still there."""

from __future__ import annotations

import threading
import time

import pyarrow as pa
import pytest
from apache_beam.runners.worker.statesampler import StateSampler
from apache_beam.utils.counters import CounterFactory
from pyflink.fn_execution import coder_impl_fast
from pyflink.fn_execution.ResettableIO import ResettableIO

from jobs.exchange import column_result, exchange_arrow_columns, first_row_result

SCHEMA = pa.schema([("topic", pa.string()), ("value", pa.binary())])
BATCH = pa.record_batch([["t"] * 1000, [b"v" * 500] * 1000], schema=SCHEMA)


@pytest.fixture(autouse=True)
def exchanged() -> None:
    exchange_arrow_columns()


def sent(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def test_a_batch_is_read_in_place() -> None:
    held = sent(BATCH)
    whole = pa.py_buffer(held)
    source = ResettableIO()
    for _ in range(2):  # one object serves all batches
        source.set_input_bytes(held)
        read = pa.ipc.open_stream(source).read_next_batch()
        assert read == BATCH
        (_, _, values) = read.column(1).buffers()
        assert whole.address <= values.address < whole.address + whole.size


def test_columns_come_as_arrow_arrays() -> None:
    topic, value = coder_impl_fast.arrow_to_pandas(None, [], [BATCH])
    assert (topic, value) == (BATCH.column(0), BATCH.column(1))
    topics, _ = coder_impl_fast.arrow_to_pandas(None, [], [BATCH, BATCH])
    assert len(topics) == 2 * len(BATCH)


def test_results_go_as_arrow_arrays() -> None:
    schema = pa.schema([("lines", pa.string())])
    first = coder_impl_fast.pandas_to_arrow(schema, None, [], [first_row_result("a\nb", 3)])
    assert first.column(0).to_pylist() == ["a\nb", None, None]
    one = coder_impl_fast.pandas_to_arrow(schema, None, [], [first_row_result(None, 1)])
    assert one.column(0).to_pylist() == [None]
    many = coder_impl_fast.pandas_to_arrow(schema, None, [], [column_result(pa.array(["x", None]))])
    assert many.column(0).to_pylist() == ["x", None]


def test_the_end_of_a_bundle_waits_for_no_thread() -> None:
    before = threading.active_count()
    sampler = StateSampler("bundle", CounterFactory(), sampling_period_ms=60_000)
    sampler.start()
    assert threading.active_count() == before
    started = time.monotonic()
    sampler.stop_if_still_running()
    assert sampler.finished
    assert time.monotonic() - started < 30.0

"""The benchmark's records as Debezium writes them with the JSON converter, without schemas."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tests.bench.records import CENTS, Longs, Records, digits, instants, join, unscaled

MEAN_BYTES = 511  # of a value, exactly, over every full hundred records
WORDS = "prefers delivery in the morning; asked for an invoice on paper; called about the garden gate; "
SWING = 10  # how much longer or shorter than the mean a note may be


@dataclass(frozen=True)
class JsonRecords:
    """Keys and values of records as JSON, and the free text that brings the values to their mean length."""

    records: Records

    def keys(self) -> pa.BinaryArray:
        """Give the keys."""
        return join('{"id":', digits(self.records.ident), "}").cast(pa.binary())

    def values(self) -> pa.BinaryArray:
        """Give the values."""
        before = pc.if_else(self.records.deleted, self._fake, "null")
        after = pc.if_else(self.records.deleted, "null", join(self._head, pc.fill_null(self.notes, ""), self._tail))
        return join('{"before":', before, ',"after":', after, self._rest).cast(pa.binary())

    @cached_property
    def notes(self) -> pa.Array:
        """The free text of each row, null for deletes: as long as it takes for the mean to be what it should be."""
        kept = pc.invert(self.records.deleted).to_numpy(zero_copy_only=False)
        lengths = np.zeros(self.records.count, np.int64)
        for low in range(0, self.records.count, 100):
            rows = np.flatnonzero(kept[low : low + 100]) + low
            missing = MEAN_BYTES * min(100, self.records.count - low) - int(self._bare[low : low + 100].sum())
            share, left = divmod(missing, len(rows))
            lengths[rows] = share + (np.arange(len(rows)) < left)
            even = rows[: len(rows) // 2 * 2]
            lengths[even] += np.resize([SWING, -SWING, 5, -5, 1, -1], len(even))
        texts = pa.array([(WORDS * 5)[:length] for length in range(int(lengths.max()) + 1)])
        return texts.take(pa.array(lengths, mask=~kept))

    @cached_property
    def _bare(self) -> Longs:
        """The values' lengths without their notes."""
        row = pc.if_else(
            self.records.deleted, pc.binary_length(self._fake), pc.binary_length(join(self._head, self._tail))
        )
        frame = len('{"before":null,"after":')
        lengths: Longs = pc.add(pc.add(row, pc.binary_length(self._rest)), frame).to_numpy().astype(np.int64)
        return lengths

    @cached_property
    def _head(self) -> pa.Array:
        r = self.records
        return join(
            '{"id":', digits(r.ident), ',"email":"', r.email, '","phone":"', r.phone, '","status":"', r.status,
             '","balance":"', _base64().take(pa.array(r.cents + CENTS)), '","notes":"',
        )  # fmt: skip

    @cached_property
    def _tail(self) -> pa.Array:
        return join('","created_at":"', instants(self.records.created_us), '"}')

    @cached_property
    def _fake(self) -> pa.Array:
        """What Debezium puts before a delete of a table without full identity: the key is true, the rest is not."""
        return join(
            '{"id":', digits(self.records.ident),
            ',"email":"","phone":null,"status":"","balance":"AA==","notes":null,'
            '"created_at":"1970-01-01T00:00:00.000000Z"}',
        )  # fmt: skip

    @cached_property
    def _rest(self) -> pa.Array:
        r = self.records
        lsn, time = digits(r.lsn), digits(r.committed_ms)
        return join(
            ',"source":{"version":"2.4.2.Final","connector":"postgresql","name":"bench","ts_ms":', time,
            ',"snapshot":"false","db":"shop","sequence":"[\\"', digits(r.lsn - 8), '\\",\\"', lsn,
            '\\"]","schema":"public","table":"customers","txId":', digits(r.number + 1_000_000), ',"lsn":', lsn,
            ',"xmin":null},"op":"', r.op, '","ts_ms":', digits(r.committed_ms + 412), ',"transaction":null}',
        )  # fmt: skip


@cache
def _base64() -> pa.Array:
    """All balances as Kafka Connect writes decimals in JSON."""
    every = unscaled(np.arange(-CENTS, CENTS))
    return pa.array([base64.b64encode(value).decode() for value in every.to_pylist()])

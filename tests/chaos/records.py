"""The records of a chaos run: what stands at each offset follows from seed, topic, partition and offset alone.

One idempotent producer a run writes each partition in order, so the n-th record it makes has offset n: no list of what
was produced has to be kept, and the truth can be computed again for the comparison. Rows are small, so that millions
of them pass in minutes. Among the good ones: tombstones, deletes, records that nobody can decode, records that break a
rule, and events that the connector sent again (the position of the row before).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Longs = npt.NDArray[np.int64]

CHANGES, QUARANTINE, COUNTED = "changes", "quarantine", "counted"  # what must become of a record
GOOD, RESENT, DELETE, NEGATIVE, BROKEN, TOMBSTONE = range(6)  # what it is
# One record in so many, from the weakest claim to the strongest; primes, so that they meet in every combination.
RARITY = ((307, RESENT), (101, DELETE), (499, NEGATIVE), (997, BROKEN), (211, TOMBSTONE))
STARTED_MS = 1_750_000_000_000
KEYS = 50_000


@dataclass(frozen=True)
class Topic:
    """One topic and the stream that reads it."""

    stream: str
    partitions: int
    debezium: bool = False

    @property
    def name(self) -> str:
        """The topic's name in Kafka."""
        return f"chaos.{self.stream}"


PAYMENTS = Topic("payments", 4, debezium=True)
CLICKS = Topic("clicks", 2)
LOST_WHILE_STOPPED = Topic("lost_while_stopped", 1)
LOST_WHILE_RUNNING = Topic("lost_while_running", 1)
FLOWING = (PAYMENTS, CLICKS)  # produced to all the time, and complete at the end
DOOMED = (LOST_WHILE_STOPPED, LOST_WHILE_RUNNING)  # Kafka deletes some of their records before they are read
TOPICS = (*FLOWING, *DOOMED)


@dataclass(frozen=True)
class Records:
    """Consecutive records of one partition, from offset `first` on."""

    seed: int
    topic: Topic
    partition: int
    first: int
    count: int

    @cached_property
    def offset(self) -> Longs:
        """The offsets."""
        return np.arange(self.first, self.first + self.count, dtype=np.int64)

    @cached_property
    def _number(self) -> Longs:
        return self._numbered(self.offset)

    def _numbered(self, offsets: Longs) -> Longs:
        return offsets + self.partition * 1_000_003 + self.seed % 1_000 * 7_919

    @cached_property
    def what(self) -> Longs:
        """What each record is: GOOD, RESENT, ..."""
        number = self._numbered(np.arange(self.first - 1, self.first + self.count, dtype=np.int64))
        what = np.full(self.count + 1, GOOD, np.int64)
        for rarity, kind in RARITY:
            if self.topic.debezium or kind not in (RESENT, DELETE):
                what[number % rarity == rarity // 2] = kind
        # Only what was stored before can have been sent before.
        stored_before = (what[:-1] == GOOD) & (self.offset > 0)
        return np.asarray(np.where((what[1:] == RESENT) & ~stored_before, GOOD, what[1:]), dtype=np.int64)

    @cached_property
    def fate(self) -> pa.Array:
        """What must become of each: CHANGES, QUARANTINE or COUNTED."""
        fates = [CHANGES, CHANGES, CHANGES, QUARANTINE, QUARANTINE, COUNTED]
        return pa.array(fates).take(pa.array(self.what))

    @cached_property
    def ident(self) -> Longs:
        """The rows' keys."""
        return np.asarray(self._number * 2_654_435_761 % KEYS, dtype=np.int64)

    @cached_property
    def cents(self) -> Longs:
        """Amounts; negative ones break a rule."""
        cents = self._number * 48_271 % 1_000_000
        return np.where(self.what == NEGATIVE, -cents - 1, cents)

    @cached_property
    def note(self) -> pa.Array:
        """A text that no other record has."""
        return _join("p", _text(self.offset * 0 + self.partition), "o", _text(self.offset))

    @cached_property
    def position(self) -> Longs:
        """Where the source wrote the change; a record that is sent again has the one of the offset before."""
        return np.asarray(1_000_000 + (self.offset - (self.what == RESENT)) * 8, dtype=np.int64)

    def messages(self) -> list[dict[str, Any]]:
        """Give the records as the producer takes them."""
        dead = pa.array(self.what == TOMBSTONE)
        values = pc.if_else(dead, None, self._payload()).cast(pa.binary())
        keys = _join('{"id":', _text(self.ident), "}").cast(pa.binary())
        columns = zip(keys.to_pylist(), values.to_pylist(), strict=True)
        # The producer's interface takes one object a record.
        if self.topic.debezium:
            return [{"key": key, "value": value} for key, value in columns]
        return [{"value": value} for _, value in columns]

    def truth(self) -> pa.Table:
        """Give what the tables must hold: one row a record, values null where they are not stored."""
        what, stored = self.what, pa.array(self.what < NEGATIVE)
        whole = pa.array((what == GOOD) | (what == RESENT))
        columns = {
            "part": pa.array(np.full(self.count, self.partition, np.int32)),
            "off": pa.array(self.offset),
            "fate": self.fate.dictionary_encode(),
            "op": pc.if_else(stored, self._op, None),
            "id": _where(stored, self.ident),
            "cents": _where(whole, self.cents),
            "note": pc.if_else(whole, self.note, None),
            "position": _where(stored, self.position if self.topic.debezium else self.offset),
            "resent": pc.if_else(stored, pa.array(what == RESENT), None),
        }
        return pa.table(columns)

    @property
    def _op(self) -> pa.Array:
        if not self.topic.debezium:
            return pa.array(["e"]).take(pa.array(np.zeros(self.count, np.int64)))
        return pc.if_else(pa.array(self.what == DELETE), "d", "u")

    def _payload(self) -> pa.Array:
        row = _join('{"id":', _text(self.ident), ',"cents":', _text(self.cents), ',"note":"', self.note, '"}')
        whole = self._envelope(row) if self.topic.debezium else row
        return pc.if_else(pa.array(self.what == BROKEN), '{"id":', whole)

    def _envelope(self, row: pa.Array) -> pa.Array:
        deleted, position = pa.array(self.what == DELETE), _text(self.position)
        fake = _join('{"id":', _text(self.ident), ',"cents":0,"note":""}')  # as Debezium sends it: only the key is true
        time, before, after = _text(STARTED_MS + self.offset), pc.if_else(deleted, fake, "null"), row
        source = _join(
            '{"version":"3.7.0.Final","connector":"postgresql","name":"chaos","ts_ms":', time,
            ',"snapshot":"false","db":"shop","sequence":"[\\"', position, '\\",\\"', position,
            '\\"]","schema":"public","table":"payments","txId":', position, ',"lsn":', position, "}",
        )  # fmt: skip
        return _join(
            '{"before":', before, ',"after":', pc.if_else(deleted, "null", after), ',"source":', source,
            ',"op":"', self._op, '","ts_ms":', time, "}",
        )  # fmt: skip


def _text(numbers: Longs) -> pa.Array:
    return pa.array(numbers).cast(pa.string())


def _join(*parts: Any) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")


def _where(condition: pa.Array, numbers: Longs) -> pa.Array:
    return pc.if_else(condition, pa.array(numbers), None)

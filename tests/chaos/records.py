"""The records of a chaos run: what stands at each offset follows from seed, topic, partition and offset alone.

One idempotent producer a run writes each partition in order, so the n-th record it makes has offset n: no list of what
was produced has to be kept, and the truth can be computed again for the comparison. Rows are small, so that millions
of them pass in minutes. Here are plain events, among them tombstones, records that nobody can decode, and records that
break a rule; the change events, whose keys live, are in tests/chaos/changes.py.
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
GOOD, NEGATIVE, BROKEN, TOMBSTONE = range(4)  # what it is
# One record in so many, from the weakest claim to the strongest; primes, so that they meet in every combination.
RARITY = ((499, NEGATIVE), (997, BROKEN), (211, TOMBSTONE))
STARTED_MS = 1_750_000_000_000
KEYS = 50_000


@dataclass(frozen=True)
class Topic:
    """One topic and the stream that reads it."""

    stream: str
    partitions: int
    debezium: bool = False  # change events, of which the stream keeps history and current

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
    """Consecutive plain events of one partition, from offset `first` on."""

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
        return self.offset + self.partition * 1_000_003 + self.seed % 1_000 * 7_919

    @cached_property
    def what(self) -> Longs:
        """What each record is: GOOD, NEGATIVE, ..."""
        what = np.full(self.count, GOOD, np.int64)
        for rarity, kind in RARITY:
            what[self._number % rarity == rarity // 2] = kind
        return what

    @cached_property
    def fate(self) -> pa.Array:
        """What must become of each: CHANGES, QUARANTINE or COUNTED."""
        return pa.array([CHANGES, QUARANTINE, QUARANTINE, COUNTED]).take(pa.array(self.what))

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
        return join("p", text(self.offset * 0 + self.partition), "o", text(self.offset))

    def messages(self) -> list[dict[str, Any]]:
        """Give the records as the producer takes them, one object a record."""
        row = join('{"id":', text(self.ident), ',"cents":', text(self.cents), ',"note":"', self.note, '"}')
        values = pc.if_else(pa.array(self.what == BROKEN), '{"id":', row)
        values = pc.if_else(pa.array(self.what == TOMBSTONE), None, values).cast(pa.binary())
        return [{"value": value} for value in values.to_pylist()]

    def truth(self) -> pa.Table:
        """Give what the tables must hold: one row a record, values null where they are not stored."""
        stored = pa.array(self.what == GOOD)
        columns = {
            "part": pa.array(np.full(self.count, self.partition, np.int32)),
            "off": pa.array(self.offset),
            "fate": self.fate.dictionary_encode(),
            "op": pc.if_else(stored, "e", None),
            "id": where(stored, self.ident),
            "cents": where(stored, self.cents),
            "note": pc.if_else(stored, self.note, None),
            "position": where(stored, self.offset),
            "resent": pc.if_else(stored, False, None),
        }
        return pa.table(columns)


def text(numbers: Longs) -> pa.Array:
    """Give numbers as text."""
    return pa.array(numbers).cast(pa.string())


def join(*parts: Any) -> pa.Array:
    """Give texts put together, element by element."""
    return pc.binary_join_element_wise(*parts, "")


def where(condition: pa.Array, numbers: Longs) -> pa.Array:
    """Give numbers, null where the condition does not hold."""
    return pc.if_else(condition, pa.array(numbers), None)

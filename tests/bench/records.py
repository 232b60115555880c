"""The benchmark's records: Debezium change events of a customers table, the same content as JSON and as Avro.

Made a column at a time, so that millions of different records take seconds; the same seed gives the same records.
Three in ten are inserts, one in a hundred is a delete, the others are updates; a few break the contract's rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

KEYS = 1_000_000  # different customers, each as likely as any other
CENTS = 100_000  # balances lie between minus and plus this
STARTED_MS = 1_748_736_000_000  # 2025-06-01

FIRST = ["anna", "bela", "carla", "dmitri", "elif", "farid", "grete", "hiro", "ines", "jovan", "katrin", "lamar"]
LAST = ["almeida", "berger", "castillo", "dubois", "eriksen", "fontaine", "galli", "horvat", "ivanova", "jansen"]
DOMAINS = ["example.org", "example.com", "mail.example.net", "post.example.de", "example.co.uk"]
STATES = ["new", "active", "active", "active", "blocked"]

# How rare each is: one record in so many.
DELETES, UNKNOWN_STATES, NEGATIVE_BALANCES, BROKEN_EMAILS = 100, 1_000, 2_000, 5_000

Longs = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Records:
    """The content of consecutive records, from number `first` on: one array a field.

    Several writers may share the work: each takes one lane, the customers whose key leaves that remainder by `lanes`.
    """

    first: int
    count: int
    seed: int = 1
    lane: int = 0
    lanes: int = 1
    keys: int = KEYS

    @cached_property
    def number(self) -> Longs:
        """The records' numbers in the order they were written."""
        return np.arange(self.first, self.first + self.count, dtype=np.int64)

    @cached_property
    def ident(self) -> Longs:
        """The customers' keys."""
        drawn = np.random.default_rng([self.seed, self.first]).integers(0, self.keys // self.lanes, self.count)
        return drawn * self.lanes + self.lane

    @cached_property
    def _spread(self) -> Longs:
        """A number that goes with the customer: name and address are the same in all its records."""
        return (self.ident * 2_654_435_761) & 0xFFFFFFFF

    @cached_property
    def email(self) -> pa.Array:
        """Addresses; a few have no @."""
        boxes = pa.array([f"{first}.{last}" for first in FIRST for last in LAST])
        at = pa.array(np.where(self.number % BROKEN_EMAILS == 17, " at ", "@"))
        return join(boxes.take(self._people), digits(self._spread % 9973), at, _of(DOMAINS, self._spread))

    @cached_property
    def phone(self) -> pa.Array:
        """Telephone numbers."""
        return join("+49 170 ", digits(self._spread % 8_999_999 + 1_000_000))

    @property
    def _people(self) -> pa.Array:
        return pa.array(self._spread % (len(FIRST) * len(LAST)))

    @cached_property
    def status(self) -> pa.Array:
        """States; a few that the contract does not know."""
        return pc.if_else(
            pa.array(self.number % UNKNOWN_STATES == 31), "vip", _of(STATES, self.number * 7 + self.ident)
        )

    @cached_property
    def cents(self) -> Longs:
        """Balances in cents; a few are negative."""
        cents = np.asarray((self._spread * 31 + self.number) % CENTS, dtype=np.int64)
        return np.where(self.number % NEGATIVE_BALANCES == 43, -cents - 1, cents)

    @cached_property
    def created_us(self) -> Longs:
        """When the customer was created, in microseconds since the epoch."""
        return STARTED_MS * 1000 - self._spread * 7919

    @property
    def committed_ms(self) -> Longs:
        """When the database committed, in milliseconds since the epoch."""
        return STARTED_MS + self.number // 16

    @property
    def lsn(self) -> Longs:
        """Where the change stands in the database's log."""
        return 200_000_000 + self.number * 56

    @cached_property
    def deleted(self) -> pa.BooleanArray:
        """Which records are deletes."""
        return pa.array(self.number % DELETES == 57)

    @cached_property
    def op(self) -> pa.Array:
        """The operations."""
        return pc.if_else(self.deleted, "d", pc.if_else(pa.array(self.number % 10 < 3), "c", "u"))


def join(*parts: Any) -> pa.Array:
    """Give the parts (arrays, or texts for all rows) joined row by row."""
    as_bytes = any(isinstance(p, bytes) or (isinstance(p, pa.Array) and p.type == pa.binary()) for p in parts)
    return pc.binary_join_element_wise(*parts, b"" if as_bytes else "")


def digits(values: Longs) -> pa.Array:
    """Give numbers as text."""
    return pa.array(values).cast(pa.string())


def instants(micros: Longs) -> pa.Array:
    """Give microseconds since the epoch as ISO 8601 in UTC, as Debezium writes timestamptz."""
    text = pa.array(micros, pa.timestamp("us")).cast(pa.string())
    return join(pc.utf8_replace_slice(text, start=10, stop=11, replacement="T"), "Z")


@cache
def _unscaled() -> pa.BinaryArray:
    """All amounts of cents from -CENTS to CENTS - 1 as bytes: big-endian two's complement, as short as can be."""
    amounts = range(-CENTS, CENTS)
    return pa.array([n.to_bytes((n + (n < 0)).bit_length() // 8 + 1, "big", signed=True) for n in amounts], pa.binary())


def unscaled(cents: Longs) -> pa.BinaryArray:
    """Give amounts of cents as a Kafka Connect decimal of scale 2 holds them."""
    return _unscaled().take(pa.array(cents + CENTS))


def _of(words: list[str], choice: Longs) -> pa.Array:
    return pa.array(words).take(pa.array(choice % len(words)))

"""The change events of a chaos run: families of keys that live through tests/chaos/life.py, and what they must leave.

Offsets come in blocks of four, one step of one family; in each round of FAMILIES blocks every family takes one step, in
another order than in the round before. All partitions have the same family at the same offset. The last AGAIN of every
PERIOD blocks are those before them once more, byte for byte: the connector was killed, and sends again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tests.chaos import life, writing
from tests.chaos.records import CHANGES, COUNTED, QUARANTINE, STARTED_MS, Longs, Records, Topic, join, text, where

FAMILIES = 5_003  # a prime
PERIOD, AGAIN = 1_024, 32  # blocks
LIVES = life.lives()
POSITION = 1_000_000  # of the first record
FATES = pa.array([CHANGES] * 7 + [QUARANTINE, QUARANTINE, COUNTED])
OPS = pa.array(["c", "u", "u", "d", "d", "c", "c", "u", None, None])
SCRAMBLE = 2_654_435_761  # odd: no two keys become one


@dataclass(frozen=True)
class Changes:
    """Consecutive change events of one partition, from offset `first` on."""

    seed: int
    topic: Topic
    partition: int
    first: int
    count: int
    encoding: str = "json"

    @cached_property
    def offset(self) -> Longs:
        """The offsets."""
        return np.arange(self.first, self.first + self.count, dtype=np.int64)

    @cached_property
    def again(self) -> writing.Flags:
        """Which records are sent a second time."""
        flags: writing.Flags = self.offset // life.WIDTH % PERIOD >= PERIOD - AGAIN
        return flags

    @cached_property
    def number(self) -> Longs:
        """The records as the source made them: of one sent again, the number of the first time."""
        block, record = self.offset // life.WIDTH, self.offset % life.WIDTH
        sent = block // PERIOD * (PERIOD - AGAIN) + block % PERIOD - AGAIN * self.again
        return np.asarray(sent * life.WIDTH + record, np.int64)

    # --- which record of which family

    @cached_property
    def _turn(self) -> Longs:
        return self.number // life.WIDTH // FAMILIES

    @cached_property
    def _family(self) -> Longs:
        place = self.number // life.WIDTH % FAMILIES
        return (place * self._stride + self._turn * self._shift) % FAMILIES

    @property
    def _stride(self) -> int:
        return 1 + self.seed * 7_919 % (FAMILIES - 1)

    @property
    def _shift(self) -> int:
        return 1 + self.seed * 104_729 % (FAMILIES - 1)

    def _number_of(self, turn: Longs, record: Longs) -> Longs:
        """Give the numbers of records of these families in other rounds."""
        place = (self._family - turn * self._shift) * pow(self._stride, -1, FAMILIES) % FAMILIES
        return (turn * FAMILIES + place) * life.WIDTH + record

    def _cells(self, name: str) -> Longs:
        found = getattr(LIVES, name)[self._rows, self.number % life.WIDTH, self.partition]
        return np.asarray(found, np.int64)

    @cached_property
    def _rows(self) -> Longs:
        return LIVES.row((self._family + self.seed) % life.STEPS, self._turn)

    # --- what they say

    @cached_property
    def what(self) -> Longs:
        """What each record is: life.CREATE, ..."""
        return self._cells("what")

    @cached_property
    def ident(self) -> Longs:
        """The rows' keys."""
        return self._key(self.partition, self._cells("member"))

    @cached_property
    def other(self) -> Longs:
        """Of a key change: the key after (of a MOVE), or before (of a LINK); else nothing of use."""
        return self._key(self._cells("other_partition"), self._cells("other_member"))

    def _key(self, partition: Longs | int, member: Longs) -> Longs:
        key = (self._family * life.PARTITIONS + partition) * life.MEMBERS + member
        return np.asarray(key * SCRAMBLE % (1 << 32), np.int64)

    @cached_property
    def place(self) -> Longs:
        """Where the source wrote the change; the create of a key change stands where its delete does."""
        return self.number - self._cells("behind")

    @cached_property
    def cents(self) -> Longs:
        """Amounts; negative ones break a rule."""
        cents = (self.number + self.partition * 1_000_003 + self.seed % 1_000 * 7_919) * 48_271 % 1_000_000
        return np.where(self.what == life.NEGATIVE, -cents - 1, cents)

    @cached_property
    def note(self) -> pa.Array:
        """A text that no other change has, as its row would hold it."""
        return _note(np.full(self.count, self.partition), self.number)

    @cached_property
    def value(self) -> pa.Array:
        """The note that the row has after the change: where the change does not send it, that of an earlier one."""
        turn = self._turn - self._cells("note_rounds")
        return _note(self._cells("note_partition"), self._number_of(turn, self._cells("note_record")))

    def _is(self, *kinds: int) -> writing.Flags:
        flags: writing.Flags = np.isin(self.what, kinds)
        return flags

    def messages(self) -> list[dict[str, Any]]:
        """Give the records as the producer takes them, one object a record."""
        rows = writing.Rows(
            id=self.ident,
            cents=self.cents,
            note=pc.if_else(pa.array(self._is(life.UNSET, life.LINK_UNSET)), writing.PLACEHOLDER, self.note),
            op=OPS.take(pa.array(self.what)).fill_null("u"),
            deleted=self._is(life.DELETE, life.MOVE),
            position=POSITION + self.place * 8,
            committed=POSITION + (self.place - self.place % life.WIDTH) * 8 - 8,
            time=STARTED_MS + self.place,
        )
        keys, values = writing.WRITERS[self.encoding](rows)
        values = pc.if_else(pa.array(self._is(life.BROKEN)), pa.scalar(b'{"id":'), values)
        values = pc.if_else(pa.array(self._is(life.TOMBSTONE)), pa.scalar(None, pa.binary()), values)
        said = zip(keys.to_pylist(), values.to_pylist(), strict=True)
        messages = [{"key": key, "value": value} for key, value in said]
        for header, kinds in (("new", (life.MOVE,)), ("old", (life.LINK, life.LINK_UNSET))):
            for index in np.flatnonzero(self._is(*kinds)):
                named = b'{"id":%d}' % self.other[index]
                messages[index]["headers"] = [(f"__debezium.{header}key", named)]
        return messages

    def truth(self) -> pa.Table:
        """Give what the tables must hold: one row a record, values null where they are not stored.

        For the tables of keys: `rank` orders the changes of a key, `ms` is when each happened, `value` the note that
        the row has then, `gone` says that there is none; `waits` marks a change in quarantine that makes its row stale.
        """
        stored, gone = pa.array(self.what <= life.STORED), self._is(life.DELETE, life.MOVE)
        alive = pa.array((self.what <= life.STORED) & ~gone)
        linked = self._is(life.LINK, life.LINK_UNSET)
        said = pc.and_(alive, pa.array(~self._is(life.UNSET, life.LINK_UNSET)))
        columns = {
            "part": pa.array(np.full(self.count, self.partition, np.int32)),
            "off": pa.array(self.offset),
            "fate": FATES.take(pa.array(self.what)).dictionary_encode(),
            "op": pc.if_else(stored, OPS.take(pa.array(self.what)), None),
            "id": where(stored, self.ident),
            "cents": where(alive, self.cents),
            "note": pc.if_else(said, self.note, None),
            "position": where(stored, POSITION + self.place * 8),
            "resent": pc.if_else(stored, pa.array(self.again), None),
            "key": pa.array(self.ident),
            "rank": pa.array(self.place * 2 + linked),
            "ms": pa.array(STARTED_MS + self.place),
            "value": pc.if_else(alive, self.value, None),
            "gone": pa.array(gone),
            "waits": pa.array(self._is(life.NEGATIVE)),
            "before": where(pa.array(linked), self.other),
            "after": where(pa.array(self._is(life.MOVE)), self.other),
            "again": pa.array(self.again),
        }
        return pa.table(columns)


def records_of(seed: int, topic: Topic, partition: int, first: int, count: int, encoding: str = "json") -> Any:
    """Give consecutive records of a topic's partition: Changes, or Records where the topic holds plain events."""
    if topic.debezium:
        return Changes(seed, topic, partition, first, count, encoding)
    return Records(seed, topic, partition, first, count)


def _note(partition: Longs, number: Longs) -> pa.Array:
    return join("p", text(partition), "n", text(number))

"""A made-up source table, and the change events that a connector would send of it: the truth to compare with."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterator
from typing import Any

from contracts.model import Contract, Encoding, Envelope, Field, StateTables
from contracts.types import parse_type

TOPIC = "shop.docs"
CONTRACT = Contract(
    stream="docs",
    version="1.0.0",
    file="docs.odcs.yaml",
    encoding=Encoding.JSON,
    envelope=Envelope.DEBEZIUM,
    topics=(TOPIC,),
    tables=("quarantine", "changes", "history", "current"),
    fields=(
        Field("id", "id", parse_type("bigint"), key_position=1),
        Field("n", "n", parse_type("bigint")),
        Field("body", "body", parse_type("text")),
        Field("notes", "notes", parse_type("text")),
    ),
)
COMPOSITE = dataclasses.replace(
    CONTRACT,
    fields=(
        Field("region", "region", parse_type("text"), key_position=1),
        *(dataclasses.replace(f, key_position=2 if f.name == "id" else None) for f in CONTRACT.fields),
    ),
)
TOAST = ("body", "notes")
Row = dict[str, Any]
Key = tuple[Any, ...]
Batch = tuple[list[Row], dict[tuple[str, int], int]]  # events, and by partition the offset before them


def contract(composite: bool = False, **state: Any) -> Contract:
    return dataclasses.replace(COMPOSITE if composite else CONTRACT, state=StateTables(**state))


class Source:
    """A table that remembers its rows, its changelog, and what was sent of every change."""

    def __init__(
        self,
        seed: int,
        of: Contract,
        *,
        keys: int = 5,
        partitions: int = 3,
        truncates: bool = False,
        withholds: bool = False,
        rereads: bool = False,
        scattered: bool = False,
        renames: bool = True,
    ) -> None:
        self.random = random.Random(seed)
        self.contract = of
        self.keys = [field.name for field in of.key]
        self.columns, self.toast = ["n", *TOAST], list(TOAST)
        self.rows: dict[Key, Row] = {}
        self.versions: dict[Key, list[tuple[int, int | None, Row]]] = {}  # key -> (from, to, row)
        self.events: list[Row] = []  # in the order of the source, with the partition each goes to
        self.withheld: list[Row] = []  # changes that a rule or the filter kept out, among the events
        self._waiting: dict[Key, list[tuple[int, list[str]]]] = {}  # key -> changes in quarantine: position, columns
        self._said: dict[Key, dict[str, int]] = {}  # key -> where each column was last said
        self._outside: dict[Key, Row] = {}  # rows that have left the filter
        self._unkept: dict[Key, set[str]] = {}  # key -> columns that were last said where they are not kept
        self._truncates, self._withholds, self._renames = truncates, withholds, renames
        self._rereads = rereads
        self._scattered = scattered  # changes of one key on several partitions, as when their number changes
        self.given: list[tuple[int, int]] = []  # partition and offset of every change given that was not withheld
        self._given = 0  # events given to partitions
        self._next: dict[int, int] = {}  # partition -> its next offset
        self._many = keys
        self._partitions = partitions
        self._lsn = 1000
        self._commit = 900
        self._waits: set[Key] = set()

    def run(self, steps: int) -> None:
        """Make so many transactions."""
        for _ in range(steps):
            for _ in range(self.random.choice([1, 1, 1, 2, 3])):
                self._statement()
            self._commit = self._lsn

    def _statement(self) -> None:
        if self._rereads and self.random.random() < 0.1:
            self._reread()
            return
        if self._truncates and self.random.random() < 0.04:
            self._truncate()
            return
        key = self._key()
        if key in self._outside:
            self._outside_the_filter(key)
            return
        if key not in self.rows:
            self._insert(key)
            return
        chance = self.random.random()
        if chance < 0.15:
            self._delete(key)
        elif chance < 0.35 and self._renames:
            self._rename(key, self._key())
        elif chance < 0.5 and self._withholds:
            self._withhold(key)
        else:
            self._update(key)

    def _truncate(self) -> None:
        self._lsn += 10
        for key in self.rows:
            self._close(key)
        self.rows.clear()
        self._outside.clear()
        self._send("t", dict.fromkeys(self.keys))

    def _reread(self) -> None:
        """Read some rows beside the log, as an incremental snapshot does: their position is that of the last change."""
        for row in self.rows.values():
            if self.random.random() < 0.7:
                self._send("r", row, _snapshot="incremental")

    def _withhold(self, key: Key) -> None:
        """Update a row so that a rule quarantines the change, or that it leaves the filter."""
        self._lsn += 10
        kind = self.random.choice(["rejected", "dropped", "filtered"])
        unset = self.random.sample(self.toast, self.random.randint(0, len(self.toast)))
        if kind == "filtered":
            self._close(key)
            self._outside[key] = self.rows.pop(key)
            self._unkept.setdefault(key, set()).update(name for name in self.toast if name not in unset)
        else:
            self._waiting.setdefault(key, []).append((self._lsn, [name for name in self.toast if name not in unset]))
        self._send("u", dict(zip(self.keys, key, strict=True)), unset=unset, _kind=kind)

    def _outside_the_filter(self, key: Key) -> None:
        """Change a row that is outside of the filter: it stays there, is deleted, or comes back."""
        self._lsn += 10
        chance = self.random.random()
        row = self._outside[key]
        if chance < 0.2:
            del self._outside[key]
            self._unkept.pop(key)
            self._send("d", row)
        elif chance < 0.4:
            unset = self.random.sample(self.toast, self.random.randint(0, len(self.toast)))
            kind = self.random.choice(["rejected", "filtered"])
            said = [name for name in self.toast if name not in unset]
            if kind == "filtered":
                self._unkept[key].update(said)
            else:
                self._waiting.setdefault(key, []).append((self._lsn, said))
            self._send("u", dict(zip(self.keys, key, strict=True)), unset=unset, _kind=kind)
        else:
            unset = self.random.sample(self.toast, self.random.randint(0, len(self.toast)))
            said = {name: self._value(name) for name in self.columns if name not in unset}
            self._unkept[key].difference_update(said)
            lost = dict.fromkeys(self._unkept[key])
            del self._outside[key]
            self._open(key, row | said | lost)
            self._send("u", row | said, unset=unset)

    def _hidden(self, key: Key, name: str) -> bool:
        """Say whether a change that waits said a column, and none since."""
        if name in self._unkept.get(key, ()):
            return False
        return any(at > self._said[key][name] for at, said in self._waiting.get(key, ()) if name in said)

    def pending(self) -> list[tuple[Any, ...]]:
        """Give the keys of rows with columns whose value was last said outside of the filter, and these."""
        found = [(*key, sorted(self._unkept[key])) for key in self.rows if self._unkept.get(key)]
        return sorted(found)

    def stale(self) -> list[Key]:
        """Give the keys of rows below a change that waits, or with a column that such a one said, and none since."""
        return sorted(
            key
            for key in self.rows
            for newest in [max((at for at, _ in self._waiting.get(key, ())), default=0)]
            if any(self._hidden(key, name) for name in self.toast) or newest > self.versions[key][-1][0]
        )

    def _key(self) -> Key:
        number = self.random.randrange(self._many)
        return (number,) if len(self.keys) == 1 else (self.random.choice(["é", 'b\n"', ""]), number)

    def _value(self, name: str) -> Any:
        if name == "n":
            return self.random.randrange(100)
        return self.random.choice([None, "", f"{name}-{self._lsn}", f"☃{self._lsn}" * 3])

    def _insert(self, key: Key) -> None:
        row = dict(zip(self.keys, key, strict=True)) | {name: self._value(name) for name in self.columns}
        self._lsn += 10
        self._unkept.pop(key, None)
        self._open(key, row)
        self._send("c", row)

    def _update(self, key: Key) -> None:
        changed = self.random.sample(self.columns, self.random.randint(1, 3))
        row = self.rows[key] | {name: self._value(name) for name in changed}
        self._lsn += 10
        self._close(key)
        self._open(key, row)
        self._send("u", row, unset=self._unset(key, changed, row))

    def _unset(self, key: Key, changed: list[str], row: Row) -> list[str]:
        """Name the values that PostgreSQL would leave out: unchanged, large (here: any text at all)."""
        unkept = self._unkept.get(key, set())
        unkept.difference_update(changed)
        return [name for name in self.toast if name not in changed and (row[name] or name in unkept)]

    def _delete(self, key: Key) -> None:
        self._lsn += 10
        self._close(key)
        self._unkept.pop(key, None)
        self._send("d", self.rows.pop(key))

    def _rename(self, old: Key, new: Key) -> None:
        if new in self.rows or new in self._outside:
            return
        changed = self.random.sample(self.columns, self.random.randint(0, 2))
        before = self.rows.pop(old)
        after = before | {name: self._value(name) for name in changed} | dict(zip(self.keys, new, strict=True))
        self._lsn += 10
        self._close(old)
        self._send("d", before, _next_key=self._json(new))
        self._open(new, after)
        unset = self._unset(old, changed, after)
        self._unkept[new] = self._unkept.pop(old, set())
        hidden = [name for name in unset if self._hidden(old, name)]  # goes on with the value
        self._waiting.setdefault(new, []).append((self._lsn, hidden))
        self._said[new] = dict.fromkeys(self.toast, self._lsn) | dict.fromkeys(hidden, self._lsn - 1)
        self._send("c", after, unset=unset, _previous_key=self._json(old))

    def _open(self, key: Key, row: Row) -> None:
        self.rows[key] = row
        self.versions.setdefault(key, []).append((self._lsn, None, row))

    def _close(self, key: Key) -> None:
        begin, _, row = self.versions[key][-1]
        self.versions[key][-1] = (begin, self._lsn, row)

    def _json(self, key: Key) -> str:
        return json.dumps(dict(zip(self.keys, key, strict=True)))

    def _send(self, op: str, row: Row, unset: list[str] | None = None, **meta: Any) -> None:
        key = tuple(row[name] for name in self.keys)
        values = {name: row[name] for name in self.keys} if op == "d" else dict(row)
        values |= dict.fromkeys(unset or ())
        if op in "cur" and "_kind" not in meta:
            said = self._said.setdefault(key, {})
            said |= {name: self._lsn for name in self.toast if name not in (unset or ())}
        self.events.append(
            {
                **values,
                "_op": op,
                "_position_major": self._commit,
                "_position_minor": self._lsn,
                "_source_time": self._lsn * 1000,
                "_event_time": self._lsn * 1000,
                "_unset": unset or None,
                "_topic": TOPIC,
                "_partition": self._partition(key),
                "_kind": None,
                "_ingested_at": 0,
                **meta,
            }
        )

    def _partition(self, key: Key) -> int:
        chosen = self.random if self._scattered else random.Random(repr(key))
        return chosen.randrange(self._partitions)

    def by_partition(self) -> dict[int, list[Row]]:
        """Give each partition's events since the last call with their offsets, some stretches sent a second time."""
        found: dict[int, list[Row]] = {number: [] for number in range(self._partitions)}
        for event in self.events[self._given :]:
            found[event["_partition"]].append(event)
        self._given = len(self.events)
        for number, events in found.items():
            for _ in range(self.random.choice([0, 0, 1, 2])):
                end = self.random.randint(0, len(events))
                again = events[max(0, end - self.random.randint(0, 6)) : end]
                events[end:end] = again
            begin = self._next.get(number, 0)
            found[number] = [{**event, "_offset": begin + place} for place, event in enumerate(events)]
            self._next[number] = begin + len(events)
            self.given += [(number, event["_offset"]) for event in found[number] if event["_kind"] is None]
        return found

    def in_batches(self, count: int) -> Iterator[Batch]:
        """Give the events of `by_partition` in at most so many batches, partitions interleaved at random."""
        events = self.by_partition()
        at = dict.fromkeys(events, 0)
        for turn in range(count):
            rows: list[Row] = []
            prev: dict[tuple[str, int], int] = {}
            for partition, own in events.items():
                low = at[partition]
                high = len(own) if turn == count - 1 else self.random.randint(low, len(own))
                rows += own[low:high]
                if low < high and own[low]["_offset"]:
                    prev[TOPIC, partition] = own[low]["_offset"] - 1
                at[partition] = high
            if rows:
                yield rows, prev

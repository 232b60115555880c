"""Lanes: the keys of a stream dealt out to several committers, each with the changes of its own keys. Pure.

Which lane a key belongs to is the same on every machine and in every version: refine deals by it, commit judges by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lakehouse.groups import Flags, Ints
from lakehouse.merge.keys import Keys, mixed

TAG = "tidegate.lane"  # of the files that a lane wrote, and of its commits
_SEPARATOR = "#"


@dataclass(frozen=True, slots=True)
class Lane:
    """One of a stream's lanes: its number, from 0 on, of so many."""

    number: int = 0
    of: int = 1

    def __str__(self) -> str:
        """Give the lane as ids and tags name it."""
        return f"{self.number}of{self.of}"

    @property
    def alone(self) -> bool:
        """Whether the stream has no other lane."""
        return self.of == 1

    @property
    def first(self) -> bool:
        """Whether this is the lane that also does what concerns no key."""
        return self.number == 0

    @property
    def suffix(self) -> str:
        """Give what the lane adds to the id of its progress; nothing where it is alone."""
        return "" if self.alone else f"/{self}"

    def owns(self, keys: Keys) -> Flags:
        """Mark the keys that are this lane's."""
        if self.alone:
            return np.ones(len(keys), np.bool_)
        own: Flags = lane_numbers(keys, self.of) == self.number
        return own

    @classmethod
    def parse(cls, text: str) -> Lane:
        """Give the lane that str() wrote."""
        number, _, of = text.partition("of")
        return cls(int(number), int(of))


WHOLE = Lane()  # of a stream with one lane


def lanes(count: int) -> tuple[Lane, ...]:
    """Give all lanes of a stream that has so many."""
    return tuple(Lane(number, count) for number in range(count))


def lane_numbers(keys: Keys, count: int) -> Ints:
    """Give the number of the lane of each key, of so many lanes."""
    numbers: Ints = ((mixed(keys.low.view(np.uint64)) >> np.uint64(33)) % np.uint64(count)).astype(np.int64)
    return numbers


def channel(stream: str, lane: Lane) -> str:
    """Give the name under which a lane's sections travel: the stream's own where it has one lane."""
    return stream if lane.alone else f"{stream}{_SEPARATOR}{lane}"


def channel_lane(name: str) -> tuple[str, Lane]:
    """Give the stream and the lane of a channel."""
    stream, _, lane = name.partition(_SEPARATOR)
    return stream, Lane.parse(lane) if lane else WHOLE

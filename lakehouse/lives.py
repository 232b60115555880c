"""What a stream knows of the epochs of a topic that keeps its Kafka id, as its anchor's state holds it. Pure.

An epoch begins with a topic that was made again, or, in a topic that stays the same, where an operator said so: then
offsets go on, and each partition has a first offset of the new epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lakehouse.groups import Ints


@dataclass(frozen=True)
class Restart:
    """Where a partition's positions were seen to begin again: at the first row of a new initial snapshot."""

    offset: int
    major: int  # of the snapshot's position, as it ranks: LSN and 0, or file number and place in it
    minor: int
    kafka_ms: int | None = None  # when Kafka got the row

    @property
    def position(self) -> tuple[int, int]:
        """Give the snapshot's position."""
        return self.major, self.minor

    def to_list(self) -> list[int | None]:
        """Give the values in their order."""
        return [self.offset, self.major, self.minor, self.kafka_ms]


@dataclass(frozen=True)
class Life:
    """The epochs of one topic since it was made, and what was decided of them; partitions are numbers."""

    epoch: int  # the present one; where the topic is at another, nothing of this holds
    begins: tuple[Mapping[int, int], ...] = ()  # partition -> first offset, of each epoch begun since; the present last
    asked: bool = False  # whether the present epoch was asked for, and no start without asking has been since
    restarts: Mapping[int, Restart] = field(default_factory=dict)  # by partition
    accepted: tuple[tuple[int, int], ...] = ()  # positions of snapshots that are right as they are

    @property
    def start(self) -> int:
        """Give the epoch with which the topic began."""
        return self.epoch - len(self.begins)

    @property
    def pending(self) -> dict[int, Restart]:
        """Give the restarts that nobody has decided about."""
        return {number: one for number, one in self.restarts.items() if one.position not in self.accepted}

    @property
    def begins_by_asking(self) -> bool:
        """Say whether a start that asks for a new epoch begins one: not again for what was asked before."""
        return not self.asked or bool(self.pending)

    def next(self, firsts: Mapping[int, int]) -> Life:
        """Give the life with a new epoch, that begins at these offsets."""
        return Life(self.epoch + 1, (*self.begins, dict(firsts)), asked=True)

    def accepting(self) -> Life:
        """Give the life with its restarts taken for right as they are."""
        positions = {one.position for one in self.pending.values()}
        return replace(self, accepted=tuple(sorted({*self.accepted, *positions})))

    def epochs_at(self, partitions: Ints, offsets: Ints) -> Ints:
        """Give the epoch of each record by its partition and offset."""
        epochs = np.full(len(offsets), self.start, np.int64)
        numbers, which = np.unique(partitions, return_inverse=True)
        for begins in self.begins:
            # A partition that is not named came later: all of it is of the epoch, or of a later one.
            firsts = np.array([begins.get(number, 0) for number in numbers.tolist()], np.int64)
            epochs += offsets >= firsts[which]
        return epochs

    def to_json(self) -> dict[str, Any]:
        """Give the life as the anchor's state holds it."""
        return {
            "epoch": self.epoch,
            "begins": [{str(number): first for number, first in begins.items()} for begins in self.begins],
            "asked": self.asked,
            "restarts": {str(number): restart.to_list() for number, restart in self.restarts.items()},
            "accepted": self.accepted,
        }

    @classmethod
    def from_json(cls, read: Mapping[str, Any]) -> Life:
        """Give the life that to_json wrote."""
        return cls(
            epoch=read["epoch"],
            begins=tuple({int(number): first for number, first in begins.items()} for begins in read["begins"]),
            asked=read["asked"],
            restarts={int(number): Restart(*values) for number, values in read["restarts"].items()},
            accepted=tuple((major, minor) for major, minor in read["accepted"]),
        )


def life_in(known: Life | None, epoch: int) -> Life:
    """Give what holds of a topic in an epoch: nothing that was said of another. Any but the first was asked for."""
    return known if known is not None and known.epoch == epoch else Life(epoch, asked=epoch > 0)


def merged_lives(own: Mapping[str, Life], newest: Mapping[str, Life]) -> dict[str, Life]:
    """Give what a lane knows put together with what the newest commit says, by topic: what was decided is in that one.

    Of one partition's restarts the first counts.
    """
    made = {**own, **newest}
    for topic in own.keys() & newest.keys():
        one, other = own[topic], newest[topic]
        if one.epoch > other.epoch:
            made[topic] = one
        elif one.epoch == other.epoch:
            seen = sorted((*one.restarts.items(), *other.restarts.items()), key=lambda each: -each[1].offset)
            made[topic] = replace(other, restarts=dict(seen))
    return made

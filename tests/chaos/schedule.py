"""Which fault comes when: decided by the seed alone, so that a run can be repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

LONGEST_PAUSE_SECONDS = 3.0
PATIENCE = 0.7  # how often the job may recover before the next fault


@dataclass(frozen=True)
class Planned:
    """One fault to come."""

    number: int
    fault: str
    pause: float  # seconds before it
    recover: bool  # whether the job may recover after it before the next one comes
    seed: int  # of the fault's own choices


def schedule(seed: int, faults: Sequence[str], once: frozenset[str]) -> Iterator[Planned]:
    """Give faults: first each of them, in a random order, then without end any of those not in `once`."""
    random = Random(seed)
    first = list(faults)
    random.shuffle(first)
    again = [fault for fault in faults if fault not in once]
    number = 0
    while number < len(first) or again:
        fault = first[number] if number < len(first) else random.choice(again)
        number += 1
        pause, recover = random.uniform(0.0, LONGEST_PAUSE_SECONDS), random.random() < PATIENCE
        yield Planned(number, fault, pause, recover, random.getrandbits(32))

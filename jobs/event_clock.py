"""The event time that Flink's watermark is told of a stream by one refine instance. The dashboard shows it; it decides
nothing (verdicts use the durable watermark), so it may be forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lakehouse.segments import Range

Partition = tuple[str, int]


@dataclass
class EventClock:
    """Gives the slowest of the partitions' highest event times, but of those that have been idle."""

    idle_ms: int
    clock: Callable[[], float] = time.monotonic
    _highest: dict[Partition, int] = field(default_factory=dict)
    _heard: dict[Partition, float] = field(default_factory=dict)

    def read(self, ranges: Iterable[Range]) -> int:
        """Take in what a section says, and give the time (ms); 0 while there is none."""
        now = self.clock()
        for one in ranges:
            if one.max_event_time_ms is not None:
                place = (one.topic, one.partition)
                self._highest[place] = max(one.max_event_time_ms, self._highest.get(place, one.max_event_time_ms))
                self._heard[place] = now
        awake = [self._highest[p] for p, at in self._heard.items() if (now - at) * 1000 <= self.idle_ms]
        return max(min(awake, default=0), 0)

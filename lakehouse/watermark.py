"""Which rows are late: judged by a watermark that is a function of what is committed. Pure.

The stream watermark is the minimum, over the partitions that are not idle, of the highest event time seen in offset
order, minus the allowed disorder; it never goes back. All times are ms since the epoch.

A partition that is known to have records waiting in Kafka, when a stream begins or goes on after a pause, holds the
watermark back as one that has just been active: rows must not become late because another partition was read first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from contracts.model import EventTime
from lakehouse.groups import NONE, Flags, Groups, Ints, Partition


@dataclass(frozen=True)
class Seen:
    """What is known of the stream's time before a commit."""

    watermark: int | None
    highest: Mapping[Partition, int]  # partition -> highest event time, NONE of one that is awaited
    active: Mapping[Partition, int]  # partition -> when it last brought an event time, or was found to have records


@dataclass(frozen=True)
class Lateness:
    """The verdicts, in the order of the groups, and what is known afterwards."""

    late: Flags
    lateness_ms: Ints  # 0 where not late
    seen: Seen


def judge_lateness(times: Ints, caps: Ints, groups: Groups, seen: Seen, *, rule: EventTime, now_ms: int) -> Lateness:
    """Judge rows that stand in the groups' order.

    times: event times, NONE where a row has none (such a row is never late). caps: the highest time that a row may say
    (when it was read, plus max_future_skew); what lies beyond says nothing, so that no wrong clock makes all else late.
    A partition that brings its first event time sets no watermark for its own earlier rows.
    """
    lateness = np.zeros(len(times), np.int64)
    said = np.where(times > caps, NONE, times)
    brought = {partition for partition, rows in groups if said[rows].max() != NONE}
    awake = {p for p, at in seen.active.items() if now_ms - at <= rule.idle_timeout_ms} | brought
    awake &= seen.highest.keys()
    floors = _floors({p: seen.highest[p] for p in awake}, groups)
    stored = NONE if seen.watermark is None else seen.watermark
    highest, active = dict(seen.highest), dict(seen.active)
    for partition, rows in groups:
        before = seen.highest.get(partition, NONE)
        running = np.maximum.accumulate(np.concatenate(([before], said[rows])))
        if partition not in brought:
            continue
        candidates = np.minimum(running[:-1], floors[partition]) - rule.out_of_orderness_ms
        behind = np.maximum(candidates, stored) - times[rows]
        lateness[rows] = np.where(times[rows] == NONE, 0, np.maximum(behind, 0))
        highest[partition], active[partition] = int(running[-1]), now_ms
    slowest = min((highest[p] for p in awake | brought), default=NONE)
    advanced = stored if slowest == NONE else max(stored, slowest - rule.out_of_orderness_ms)
    return Lateness(lateness > 0, lateness, Seen(None if advanced == NONE else advanced, highest, active))


def _floors(highest: Mapping[Partition, int], groups: Groups) -> dict[Partition, int]:
    """Give for each partition of the batch the lowest highest time of the others that are not idle."""
    ranked = sorted((time, partition) for partition, time in highest.items())[:2]
    nothing = np.iinfo(np.int64).max >> 1
    return {p: next((time for time, other in ranked if other != p), nothing) for p in groups.keys}

"""What a commit says of itself: the stream's state after it, for the anchor, and what of it the other tables carry."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lakehouse.anchor import AnchorState
from lakehouse.batches import Loaded
from lakehouse.identity import TopicIdentity
from lakehouse.plan import Step
from lakehouse.progress import Partition
from lakehouse.verdicts import Judged


def stamped(
    state: AnchorState, steps: Sequence[Step], loaded: Loaded, judged: Judged, identity: TopicIdentity | None
) -> AnchorState:
    """Give the state that the commit of a chunk carries, from the one before it."""
    ids = {topic: i for topic, i in identity.ids.items() if topic in loaded.topics} if identity else {}
    ends = identity.ends if identity else {}
    partitions = {
        p: replace(s, end=ends.get(p, s.end)) if p in loaded.lasts else s for p, s in judged.partitions.items()
    }
    return replace(
        state,
        commit=uuid.uuid4().hex,
        watermark_ms=judged.watermark_ms,
        topics={**state.topics, **ids},
        counts=dict(Counter(state.counts) + judged.counts),
        last_counts=dict(judged.counts),
        ranges=_ranges(steps, loaded.lasts),
        partitions=partitions,
        awaited=judged.awaited,
        floors=judged.batch.floors,
    )


def _ranges(steps: Sequence[Step], lasts: Mapping[Partition, int]) -> tuple[tuple[str, int, int, int, int], ...]:
    """Give the ranges of steps that are applied, up to each partition's last offset."""
    found = [
        (r.topic, r.partition, max(r.first, step.cuts[r.topic, r.partition] + 1), min(r.last, last), r.records)
        for step in steps
        for r in step.ranges
        if (last := lasts.get((r.topic, r.partition))) is not None
    ]
    return tuple(covered for covered in found if covered[2] <= covered[3])


def without_state(state: AnchorState) -> AnchorState:
    """Give what a table that is not the anchor carries: who, what and how much, not the partitions' states."""
    return replace(state, partitions={}, awaited={}, watermark_ms=None, tables={}, lives={}, lane=None)

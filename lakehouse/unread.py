"""Which partitions have records that nobody has read yet, as far as the watermark and new snapshots must know."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

from lakehouse.anchor import AnchorState
from lakehouse.plan import GapOracle
from lakehouse.progress import Partition

MANY = 64  # offsets: a partition that is so far behind has records


def is_pause(state: AnchorState, idle_ms: int, now_ms: int) -> bool:
    """Say whether a stream begins, or goes on after nothing came for longer than a partition may be idle."""
    last = max((known.active for known in state.partitions.values() if known.active is not None), default=None)
    return not state.partitions or (last is not None and now_ms - last > idle_ms)


def unread(
    ends: Mapping[Partition, int], reached: Mapping[Partition, int], gaps: GapOracle, many: float = MANY
) -> Collection[Partition]:
    """Give the partitions with records behind the offsets reached; ends: one above the last offset, of each.

    One that was never read, or is far behind, has records: so many offsets can hardly be the markers of transactions
    alone, and asking costs a consumer.
    """
    behind = {p: end - reached[p] - 1 if p in reached else many for p, end in ends.items() if end > 0}
    return [p for p, n in behind.items() if n >= many or (n > 0 and gaps(*p, reached[p], ends[p]))]


def below(
    ends: Mapping[Partition, int],
    reached: Mapping[Partition, int],
    coming: Collection[Partition],
    begins: Callable[[], Mapping[Partition, int]],
    gaps: GapOracle,
) -> Collection[Partition]:
    """Give the partitions that have, or may have, records below ends which are still to be reached.

    Kafka is asked about all of them, however far behind, but only once none of them is coming nearer by itself.
    coming: the partitions that have just brought records; begins: gives where the stream begins in partitions, else 0.
    """
    left = {p: end for p, end in ends.items() if reached.get(p, -1) + 1 < end}
    if not left or not left.keys().isdisjoint(coming):
        return left
    first = {} if left.keys() <= reached.keys() else begins()
    return unread(left, {p: reached.get(p, first.get(p, 0) - 1) for p in left}, gaps, math.inf)

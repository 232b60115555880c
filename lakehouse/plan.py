"""Which offsets of which sections a commit applies: nothing twice, and no gap unseen. Pure."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lakehouse.errors import GapFound, RetentionLoss
from lakehouse.segments import Range, SectionRef

Partition = tuple[str, int]  # topic, partition
# Says whether a readable record of the partition lies strictly between two offsets: (topic, partition, after, before).
GapOracle = Callable[[str, int, int, int], bool]
# Gives the lowest offset that Kafka still holds of a partition, now: (topic, partition).
Earliest = Callable[[str, int], int]


def all_held(_topic: str, _partition: int) -> int:
    """Say that nothing was ever deleted."""
    return 0


@dataclass(frozen=True)
class Step:
    """One section to apply: of each partition in cuts, the offsets above the cut, up to the section's last."""

    ref: SectionRef
    cuts: Mapping[Partition, int]

    @property
    def whole(self) -> bool:
        """Whether every record of the section is applied."""
        return len(self.cuts) == len(self.ref.ranges) and all(
            self.cuts[r.topic, r.partition] < r.first for r in self.ref.ranges
        )

    @property
    def ranges(self) -> list[Range]:
        """Give the ranges that the step applies, from the first offset applied."""
        return [r for r in self.ref.ranges if (r.topic, r.partition) in self.cuts]

    def lasts(self) -> dict[Partition, int]:
        """Give the progress of each partition after this step."""
        return {(r.topic, r.partition): r.last for r in self.ranges}


def plan(
    refs: Sequence[SectionRef], progress: Mapping[Partition, int], gaps: GapOracle, earliest: Earliest = all_held
) -> list[Step]:
    """Give the steps that bring the tables from their progress to the end of the sections, in an order that is
    ascending in every partition.

    Sections wholly at or below the progress are left out. Raises GapFound when a record would be lost: a section says
    that one came before it which is not in the tables, or the oracle finds one. Raises RetentionLoss when offsets are
    left out that Kafka no longer holds: nobody can tell any more whether there were records.
    """
    chains: dict[Partition, list[tuple[int, Range]]] = defaultdict(list)
    for index, ref in enumerate(refs):
        for covered in ref.ranges:
            chains[covered.topic, covered.partition].append((index, covered))
    cuts: dict[Partition, deque[tuple[int, int]]] = {}
    for partition, chain in chains.items():
        chain.sort(key=lambda link: (link[1].first, link[1].last))
        needed = deque(_needed(chain, progress.get(partition), gaps, earliest, refs[0].stream))
        if needed:
            cuts[partition] = needed
    return [Step(refs[index], applied) for index, applied in _in_order(cuts)]


def chunks_of(steps: Sequence[Step], max_rows: int) -> Iterator[list[Step]]:
    """Give the steps in lists of at most max_rows rows each; a single section is never split."""
    chunk: list[Step] = []
    rows = 0
    for step in steps:
        if chunk and rows + step.ref.rows > max_rows:
            yield chunk
            chunk, rows = [], 0
        chunk.append(step)
        rows += step.ref.rows
    if chunk:
        yield chunk


def _needed(
    chain: Sequence[tuple[int, Range]], progress: int | None, gaps: GapOracle, earliest: Earliest, stream: str
) -> Iterator[tuple[int, int]]:
    """Give the sections of one partition that bring something new, and above which offset each does."""
    for index, covered in chain:
        if progress is not None and covered.last <= progress:
            continue
        if progress is not None:
            _prove_nothing_deleted(covered, progress, earliest, stream)
        _prove_no_gap(covered, progress, gaps, stream)
        yield index, covered.first - 1 if progress is None else progress
        progress = covered.last


def _prove_no_gap(covered: Range, progress: int | None, gaps: GapOracle, stream: str) -> None:
    if covered.prev is not None:
        # prev was read and handed on: if the tables do not hold it, it is lost, whatever Kafka still has.
        lost = progress is None or covered.prev > progress
    elif progress is None:
        return  # the partition begins here
    else:
        lost = covered.first > progress + 1 and gaps(covered.topic, covered.partition, progress, covered.first)
    if lost:
        raise GapFound(stream, covered.topic, covered.partition, progress, covered.first)


def _prove_nothing_deleted(covered: Range, progress: int, earliest: Earliest, stream: str) -> None:
    """Offsets are left out by transaction markers and compaction, but also by a reader that Kafka's retention overtook.

    The lowest offset only ever rises: while it is not above what comes next, nothing that comes was ever deleted.
    """
    left_out = covered.first > progress + 1 or covered.records <= covered.last - covered.first
    if not left_out:
        return
    lowest = earliest(covered.topic, covered.partition)
    if lowest > progress + 1:
        raise RetentionLoss(stream, covered.topic, covered.partition, progress, lowest)


def _in_order(chains: Mapping[Partition, deque[tuple[int, int]]]) -> Iterator[tuple[int, dict[Partition, int]]]:
    """Give section indexes with their cuts so that each partition's come in the order of its chain.

    A section is given whole once it is next in all its chains. Sections that wait for each other (two readers that
    swapped partitions) are given partition by partition.
    """
    waiting: dict[int, int] = defaultdict(int)
    for chain in chains.values():
        for index, _ in chain:
            waiting[index] += 1
    heads: dict[int, dict[Partition, int]] = defaultdict(dict)
    ready: deque[int] = deque()

    def advance(partition: Partition) -> None:
        if chains[partition]:
            index, cut = chains[partition].popleft()
            heads[index][partition] = cut
            if len(heads[index]) == waiting[index]:
                ready.append(index)

    for partition in sorted(chains):
        advance(partition)
    while heads:
        index = ready.popleft() if ready else min(heads)
        applied = heads.pop(index)
        waiting[index] -= len(applied)
        yield index, applied
        for partition in applied:
            advance(partition)

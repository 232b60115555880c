"""Sections become one batch: read in parallel, cut at the progress, put together without copying a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.columns import WITHHELD_META
from lakehouse.groups import group_rows
from lakehouse.kind import within
from lakehouse.lake import Lake
from lakehouse.plan import Step
from lakehouse.progress import Partition
from lakehouse.segments import Section, SectionRef, read_section

READERS = ThreadPoolExecutor(4, thread_name_prefix="read-sections")  # shared: commits of streams run in parallel


class SectionCache:
    """Gives sections by reference; one that is needed for two commits, or for a retry, is read once."""

    def __init__(self, lake: Lake, refs: Sequence[SectionRef]) -> None:
        self._lake = lake
        self._read: dict[tuple[str, int], Section] = {}

    def read(self, refs: Sequence[SectionRef]) -> list[Section]:
        """Give the sections, in the order of the references; raises SegmentMissing."""
        missing = {(ref.path, ref.start): ref for ref in refs if (ref.path, ref.start) not in self._read}
        read = (
            READERS.map(lambda ref: read_section(self._lake, ref), missing.values())
            if len(missing) > 1
            else (read_section(self._lake, ref) for ref in missing.values())
        )
        self._read = {key: s for key, s in self._read.items() if key in {(r.path, r.start) for r in refs}}
        self._read.update(zip(missing, read, strict=True))
        return [self._read[ref.path, ref.start] for ref in refs]


@dataclass(frozen=True)
class Loaded:
    """What a chunk of steps brings, trimmed; each partition's records in an order that its steps give."""

    rows: pa.Table
    rejects: pa.Table
    others: pa.Table
    topics: tuple[str, ...]
    cuts: Mapping[Partition, int]  # per partition: everything applied is above
    firsts: Mapping[Partition, int]  # per partition: the first offset applied
    lasts: Mapping[Partition, int]  # per partition: the progress afterwards
    records: int  # covered, before trimming
    # contracts.columns.withheld_schema; without the key's columns when empty
    withheld: pa.Table = field(default_factory=WITHHELD_META.empty_table)

    def up_to(self, lasts: Mapping[Partition, int]) -> Loaded:
        """Give what lies at or below each partition's last offset."""
        left = {p: last for p, last in lasts.items() if last >= self.firsts[p]}
        return replace(
            self,
            rows=within(self.rows, left),
            rejects=within(self.rejects, left),
            others=within(self.others, left),
            topics=tuple(sorted({topic for topic, _ in left})),
            cuts={p: self.cuts[p] for p in left},
            firsts={p: self.firsts[p] for p in left},
            lasts=left,
            withheld=within(self.withheld, left),
        )


def load(cache: SectionCache, steps: Sequence[Step]) -> Loaded:
    """Read the steps' sections and trim them."""
    sections = cache.read([step.ref for step in steps])
    pairs = zip(sections, steps, strict=True)
    trimmed = [section if step.whole else trim(section, step.cuts) for section, step in pairs]
    cuts: dict[Partition, int] = {}
    firsts: dict[Partition, int] = {}
    lasts: dict[Partition, int] = {}
    for step in steps:
        for covered in step.ranges:
            partition = (covered.topic, covered.partition)
            cuts.setdefault(partition, step.cuts[partition])
            firsts.setdefault(partition, max(covered.first, step.cuts[partition] + 1))
        lasts |= step.lasts()
    return Loaded(
        # A source may have gained columns between two sections: the rows before have null in them.
        rows=pa.concat_tables([s.rows for s in trimmed], promote_options="default"),
        rejects=pa.concat_tables([s.rejects for s in trimmed]),
        others=pa.concat_tables([s.others for s in trimmed]),
        topics=tuple(sorted({topic for topic, _ in lasts})),
        cuts=cuts,
        firsts=firsts,
        lasts=lasts,
        records=sum(r.records for step in steps for r in step.ranges),
        withheld=_together([s.withheld for s in trimmed]),
    )


def _together(withheld: Sequence[pa.Table]) -> pa.Table:
    """Put withheld changes together; empty tables do not say what a key's columns are."""
    held = [table for table in withheld if len(table)]
    # Sections of another version may lack a column.
    return pa.concat_tables(held, promote_options="default") if held else WITHHELD_META.empty_table()


def trim(section: Section, cuts: Mapping[Partition, int]) -> Section:
    """Keep of each partition in cuts the records above its cut, and nothing of other partitions."""
    topics = tuple(sorted({r.topic for r in section.ranges}))
    return Section(
        section.stream,
        _above(section.rows, topics, cuts),
        _above(section.rejects, topics, cuts),
        _above(section.others, topics, cuts),
        section.ranges,
        _above(section.withheld, topics, cuts),
    )


def _above(rows: pa.Table, topics: Sequence[str], cuts: Mapping[Partition, int]) -> pa.Table:
    groups = group_rows(rows, topics)
    offsets = rows["_offset"].to_numpy()
    keep = np.zeros(len(rows), np.bool_)
    for partition, where in groups:
        if partition in cuts:
            keep[where] = groups.ordered(offsets)[where] > cuts[partition]
    return rows if keep.all() else rows.filter(pa.array(groups.scattered(keep)))


def counts_of(loaded: Loaded) -> Counter[str]:
    """Count what a batch holds: read, applied, quarantined, `rejected.<rule>` and `kind.<kind>`."""
    counts: Counter[str] = Counter()
    if len(loaded.rejects):
        counts.update({f"rejected.{rule}": n for rule, n in _tally(pc.list_flatten(loaded.rejects["_rules"]))})
    if len(loaded.others):
        counts.update({f"kind.{kind}": n for kind, n in _tally(loaded.others["_kind"])})
    counts["applied"] = len(loaded.rows)
    counts["quarantined"] = len(loaded.rejects)
    counts["read"] = len(loaded.rows) + len(loaded.rejects) + len(loaded.others)
    return counts


def _tally(values: pa.ChunkedArray) -> list[tuple[str, int]]:
    return [(entry["values"], entry["counts"]) for entry in pc.value_counts(values).to_pylist()]

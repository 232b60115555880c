"""Which rows the connector sent again: their position is not above what their partition already had. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lakehouse.groups import NONE, Flags, Groups, Ints, Partition

Position = tuple[int, int]  # major, minor; NONE for null


def judge_resent(
    major: Ints, minor: Ints, judged: Flags, groups: Groups, highest: Mapping[Partition, Position]
) -> tuple[Flags, dict[Partition, Position]]:
    """Give, for rows in the groups' order, which are resent, and the highest position of each partition afterwards.

    Positions compare as (major, minor). Rows with judged false are never resent and raise nothing.
    """
    resent = np.zeros(len(major), np.bool_)
    after = dict(highest)
    for partition, rows in groups:
        where = np.flatnonzero(judged[rows]) + rows.start
        if not len(where):
            continue
        before = highest.get(partition, (NONE, NONE))
        majors = np.concatenate(([before[0]], major[where]))
        minors = np.concatenate(([before[1]], minor[where]))
        ranks = _ranks(majors, minors)
        running = np.maximum.accumulate(ranks)
        resent[where] = ranks[1:] <= running[:-1]
        top = int(np.argmax(ranks))
        after[partition] = (int(majors[top]), int(minors[top]))
    return resent, after


def compose_minor(minor: Ints, second: Flags) -> Ints:
    """Give minor positions in which the second half of a key change stands above the first.

    Debezium sends a key change as a delete and a create that share one position, and may share a partition.
    """
    composed: Ints = minor * 2 + second
    return composed


def _ranks(major: Ints, minor: Ints) -> Ints:
    """Give numbers that compare as the pairs do."""
    same = major[1:] == major[:-1]
    rising = (major[1:] > major[:-1]) | (same & (minor[1:] > minor[:-1]))
    if rising.all():
        return np.arange(len(major))
    order = np.lexsort((minor, major))
    new = (np.diff(major[order]) != 0) | (np.diff(minor[order]) != 0)
    ranks = np.empty(len(major), np.int64)
    ranks[order] = np.concatenate(([0], np.cumsum(new)))
    return ranks

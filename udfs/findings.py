"""What several checks found wrong with the rows of a batch, brought together row by row."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from udfs.arrays import repeat
from udfs.changes import Rejects

Findings = Mapping[str, pa.BooleanArray]  # rule -> true where a row breaks it; no nulls


def union(findings: Findings, length: int) -> pa.BooleanArray:
    """Mark the rows that break at least one of the rules."""
    return reduce(pc.or_, findings.values()) if findings else repeat(False, length)


def rejected(
    stage: str, refused: pa.BooleanArray, row: pa.Array, findings: Findings, reasons: Mapping[str, str]
) -> Rejects:
    """Give the refused rows with every rule each one breaks; `reasons` says per rule what is wrong, without values."""
    names = list(findings)
    broken = np.array([findings[name].filter(refused).to_numpy(zero_copy_only=False) for name in names]).T
    # Few sets of rules occur in a batch: the text of each is made once.
    sets, which = np.unique(broken, axis=0, return_inverse=True)
    named = [[name for name, is_broken in zip(names, one, strict=True) if is_broken] for one in sets]
    places = pa.array(which.reshape(-1))
    return Rejects(
        row.filter(refused),
        stage,
        pa.array(named, pa.list_(pa.string())).take(places),
        pa.array(["; ".join(reasons[name] for name in rules) for rules in named], pa.string()).take(places),
    )

"""Records of deletes that are older than the contract wants to remember them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import orjson

from lakehouse.groups import Ints
from lakehouse.merge.indexed import Change, IndexedTable
from lakehouse.merge.locations import POSITION_BITS
from lakehouse.merge.log import DataFile

COLUMN = "_recorded_at"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def forget(memory: IndexedTable, before_us: int) -> int:
    """Remove the records made before a time (us since the epoch) in one commit; give how many there were.

    Progress and state stay as they are. Raises as MergeTable.commit does.
    """
    memory.follow()
    state = memory.table.state()
    expired = np.concatenate([np.zeros(0, np.int64), *_expired(memory, before_us)])
    if state is None or not len(expired):
        return 0
    change = Change(memory.table.columns.empty_table(), expired)
    memory.commit(change, {}, state, operation="DELETE")
    return len(expired)


def _expired(memory: IndexedTable, before_us: int) -> Iterator[Ints]:
    """Give the locations of old records, file by file; only files that may hold one are read."""
    table = memory.table
    for number, file in list(table.files().items()):
        if (oldest := _oldest_us(file)) is not None and oldest >= before_us:
            continue
        recorded = table.scan(number, [COLUMN])[COLUMN].cast("int64").fill_null(before_us).to_numpy()
        rows = np.flatnonzero(recorded < before_us)
        dead = table.dead(number)
        if dead is not None:
            rows = np.setdiff1d(rows, np.array(dead.to_array(), np.int64))
        yield (number << POSITION_BITS) + rows.astype(np.int64)


def _oldest_us(file: DataFile) -> int | None:
    """Give when the oldest record of a file was made, or earlier; None where the log does not say it."""
    said = orjson.loads(file.add.get("stats") or "{}").get("minValues", {}).get(COLUMN)
    return None if said is None else int((datetime.fromisoformat(said) - _EPOCH) / timedelta(microseconds=1))

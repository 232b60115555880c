"""Count windows again from a stream's changes: where rows were added at a position that was passed long ago."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from contracts.model import Contract
from contracts.types import MICROS_UTC
from lakehouse.added import effective
from lakehouse.aggregates.build import counted
from lakehouse.aggregates.columns import BOUNDS
from lakehouse.aggregates.measured import NEVER
from lakehouse.aggregates.table import AggregateTable, LateTable
from lakehouse.aggregates.windows import US, reach_us
from lakehouse.anchor import AnchorState
from lakehouse.errors import CommitContested
from lakehouse.groups import Flags, Ints
from lakehouse.kind import within
from lakehouse.kinds import kinds_of
from lakehouse.lake import Lake
from lakehouse.merge.indexed import FLAGS, Change
from lakehouse.progress import Writer
from lakehouse.state.build import gathered
from lakehouse.state.table import StateTable
from lakehouse.table import Contested, StreamTable
from lakehouse.tables import KeptTable, followers_of, tables_of

ATTEMPTS = 50


def recount(  # noqa: PLR0917 (whose windows, and which)
    lake: Lake, contract: Contract, pipeline: str, pins: Mapping[str, str], first_ms: int, last_ms: int
) -> None:
    """Bring a stream's aggregates to what its tables say of the windows that touch a span of event time.

    The job may run: each table is counted up to its own progress, on top of its newest version. To be told twice is
    harmless. Raises CommitContested when others won every attempt, and what lakehouse.errors says of tables.
    """
    if not contract.aggregates:
        return
    contract = effective(lake, contract)
    epochs: dict[str, int] = {}
    writer = Writer(pipeline, epochs)
    kept = tables_of(lake, contract, kinds_of(contract), writer, pins)
    there = {table.kind.name: table for table in kept if table.open()}
    anchor = there.get(kept[-1].kind.name)
    if anchor is None or (state := anchor.state()) is None:
        return
    epochs.update(state.epochs())
    changes, late = there.get("changes"), there.get("late")
    if isinstance(changes, StreamTable) and isinstance(late, LateTable):
        for table in there.values():
            if isinstance(table, AggregateTable):
                one = _Recount(contract, changes, late, anchor, table, first_ms * US, last_ms * US)
                _until_won(contract.stream, one.run)
    if isinstance(anchor, StateTable):
        for follower in followers_of(lake, contract, writer, pins):
            if follower.open():
                _until_won(contract.stream, lambda f=follower: f.see_to(anchor))  # type: ignore[misc]


def _until_won(stream: str, verb: Callable[[], None]) -> None:
    for attempt in range(ATTEMPTS):
        try:
            verb()
            return
        except Contested:
            time.sleep(random.uniform(0, 0.05 * min(attempt + 1, 10)))
    raise CommitContested(
        f"stream {stream}: {ATTEMPTS} attempts to count windows again were lost to others. Start the pipeline, if it "
        "was killed, and call again."
    )


class _Recount:
    """Counts one aggregate's windows again, of sessions all."""

    def __init__(  # noqa: PLR0917 (what is read, and which windows)
        self,
        contract: Contract,
        changes: StreamTable,
        late: LateTable,
        anchor: KeptTable,
        table: AggregateTable,
        first: int,
        last: int,
    ) -> None:
        self._contract, self._changes, self._late, self._anchor = contract, changes, late, anchor
        self._table, self._measuring = table, table.measuring
        self._first, self._last = (-NEVER, NEVER) if table.measuring.session else (first, last)

    def run(self) -> None:
        """Put what the changes say in place of the windows' rows; raises Contested.

        The table is opened first, then those committed before and after it. Whatever the job does meanwhile, the
        changes hold what the table has counted; what it counts since then makes this commit fail.
        """
        for table in (self._table, self._changes, self._anchor):
            table.open()
        state = self._anchor.state()
        if state is None:
            return
        passed, own = self._anchor.progress(state.partitions), self._table.progress(state.partitions)
        ahead = {p: offset for p, offset in own.items() if offset > passed.get(p, -1)}
        if ahead and self._anchor is self._changes:
            raise Contested(f"table {self._table.name} counts changes that {self._changes.name} does not hold yet")
        reached = {**passed, **ahead}  # a table that lags has had nothing to count
        rows = (within(part, reached) for part in self._rows())
        parts = counted(self._contract, rows, [self._table], self._late)[self._table.name]
        parts = parts.filter(pa.array(self._touches(*(parts[name].to_numpy() for name in BOUNDS))))
        stored = self._measuring.stored(parts, state.watermark_ms, time.time_ns() // 1000)
        told = self._table.state() or AnchorState(state.pipeline, state.stream, version=state.version)
        told = replace(told, commit=uuid.uuid4().hex, last_counts={}, ranges=())
        self._table.put(Change(stored, self._held()), {}, told, state.watermark_ms)

    def _held(self) -> Ints:
        """Give where the windows' rows are."""
        self._table.indexed.follow()
        entries = self._table.indexed.below(NEVER, NEVER)
        return entries.location[self._touches(entries.minor, entries.major)] & ~FLAGS

    def _touches(self, start: Ints, end: Ints) -> Flags:
        touching: Flags = (start <= self._last) & (end > self._first)
        return touching

    def _rows(self) -> Iterator[pa.Table]:
        """Give the changes that may lie in the windows."""
        reach = reach_us(self._measuring.window)
        wanted = None
        if not self._measuring.session:
            low, high = (pa.scalar(at, pa.int64()).cast(MICROS_UTC) for at in (self._first - reach, self._last + reach))
            at = pc.field("_event_time")
            wanted = ((at >= low) & (at <= high)) | at.is_null()
        return gathered(self._changes.delta.to_pyarrow_dataset().to_batches(filter=wanted))

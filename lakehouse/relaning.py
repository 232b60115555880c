"""Another number of lanes for a stream: only when all its lanes are level, by one commit a table that begins new ids.

The old ids stay in the log, and are ignored from then on: the state says how many lanes there are. They are written
once more beside the new ones, so that a commit of an old lane that is still under way conflicts with it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from contracts.model import Contract
from lakehouse.anchor import AnchorState
from lakehouse.errors import CommitContested, LanesRefused
from lakehouse.kinds import kinds_of
from lakehouse.lake import Lake
from lakehouse.lane_states import dealt
from lakehouse.lanes import Lane, lanes
from lakehouse.progress import Partition, Writer, app_id
from lakehouse.standing import stream_progress
from lakehouse.table import Contested
from lakehouse.tables import KeptTable, tables_of

ATTEMPTS = 5


@dataclass(frozen=True)
class Levels:
    """How far the lanes are of a stream that is to have another number of them."""

    lanes: int  # that it has
    slowest: Mapping[Partition, int]
    furthest: Mapping[Partition, int]  # of all lanes and tables

    @property
    def level(self) -> bool:
        """Whether all lanes are at the same offsets."""
        return self.slowest == self.furthest


def levels_of(lake: Lake, contract: Contract, pipeline: str) -> Levels | None:
    """Give how far a stream's lanes are; None when it has as many as the contract wants, or has not begun.

    Raises LanesRefused when the tables do not say it.
    """
    opened = _opened(lake, contract, pipeline)
    return None if opened is None else opened.levels()


def levels_now(lake: Lake, contract: Contract, pipeline: str) -> Levels | None:
    """Give how far the lanes are that a stream has; None when its tables do not say it."""
    tables, states = _read(lake, contract, pipeline)
    anchor = states.get(_anchor_name(contract))
    return None if anchor is None else _Opened(pipeline, tables, anchor).levels()


def change_lanes(lake: Lake, contract: Contract, pipeline: str) -> None:
    """Give a stream whose lanes are level the contract's number of them. No committer of it may run.

    Does nothing when it has them. Raises LanesRefused when its lanes are not level, CommitContested when others won
    every attempt.
    """
    for _ in range(ATTEMPTS):
        opened = _opened(lake, contract, pipeline)
        if opened is None:
            return
        try:
            opened.change(contract.state.lanes)
            return
        except Contested:
            continue
    raise CommitContested(f"stream {contract.stream}: others won every attempt to change its lanes. Is a job running?")


def recall_lanes(lake: Lake, contract: Contract, pipeline: str) -> None:
    """Give tables that a change of lanes reached, and their anchor did not, the lanes of the contract again.

    For a contract with as many lanes as the anchor says. Raises CommitContested when somebody else commits.
    """
    opened = _opened(lake, contract, pipeline)
    for table in () if opened is None else opened.tables[:-1]:
        state = table.state()
        if state is not None and state.lanes != contract.state.lanes:
            try:
                table.commit_ids({}, replace(state, lanes=contract.state.lanes, commit=uuid.uuid4().hex))
            except Contested as error:
                raise CommitContested(f"table {table.name}: somebody else commits. Is a job running?") from error


@dataclass(frozen=True)
class _Opened:
    """A stream's open tables, the anchor last, and the anchor's state."""

    pipeline: str
    tables: Sequence[KeptTable]
    state: AnchorState

    @property
    def lanes(self) -> tuple[Lane, ...]:
        return lanes(self.state.lanes)

    def levels(self) -> Levels:
        slowest = stream_progress(self.tables[-1], self.state)
        furthest = dict(slowest)
        for table in self.tables:
            for lane in self.lanes:
                for partition, offset in table.lane_progress(self.state.partitions, lane).items():
                    furthest[partition] = max(offset, furthest.get(partition, offset))
        return Levels(self.state.lanes, slowest, furthest)

    def change(self, count: int) -> None:
        """Commit the new ids to each table; the anchor, which says how many lanes there are, comes last."""
        levels = self.levels()
        if not levels.level:
            raise LanesRefused(
                f"stream {self.state.stream}: its {self.state.lanes} lanes are not level, and only level lanes can "
                f"become {count}: start the pipeline with {self.state.lanes} lanes until it has caught up."
            )
        ids = {
            app_id(self.pipeline, *partition, self.state.partitions[partition].epoch, lane): offset
            for partition, offset in levels.furthest.items()
            for lane in (*self.lanes, *lanes(count))
        }
        told = replace(dealt(self.state, lanes(count)), commit=uuid.uuid4().hex, last_counts={}, ranges=())
        beside = replace(told, partitions={}, watermark_ms=None, tables={}, parts={})
        for table in self.tables[:-1]:
            if table.state() is not None:  # one that was never filled has no lanes yet
                table.commit_ids(ids, beside)
        self.tables[-1].commit_ids(ids, told)


def _opened(lake: Lake, contract: Contract, pipeline: str) -> _Opened | None:
    """Give the stream's tables when one of them has not as many lanes as the contract wants."""
    tables, states = _read(lake, contract, pipeline)
    if all(state.lanes == contract.state.lanes for state in states.values()):
        return None
    name = _anchor_name(contract)
    anchor = states.get(name)
    if anchor is None or not anchor.partitions:
        counts = ", ".join(sorted({str(state.lanes) for state in states.values()}))
        raise LanesRefused(
            f"stream {contract.stream}: the contract wants {contract.state.lanes} lanes, tables have {counts}, and the "
            f"table {name}, whose progress is the stream's, says nothing yet. Set `tables` and `lanes` as "
            "they were, start the pipeline until it has caught up, then change the lanes alone."
        )
    return _Opened(pipeline, tables, anchor)


def _read(lake: Lake, contract: Contract, pipeline: str) -> tuple[list[KeptTable], dict[str, AnchorState]]:
    """Open the stream's tables that are there, the anchor last; give them and the states of those that were filled."""
    epochs: dict[str, int] = {}
    made = tables_of(lake, contract, kinds_of(contract), Writer(pipeline, epochs), {})
    tables = [table for table in made if table.open()]
    states = {table.name: state for table in tables if (state := table.state()) is not None}
    if (anchor := states.get(made[-1].name)) is not None:
        epochs.update(anchor.epochs())
    return tables, states


def _anchor_name(contract: Contract) -> str:
    return kinds_of(contract)[-1].table_name(contract.stream)

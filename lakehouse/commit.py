"""Commit: sections become rows of a stream's tables, each offset exactly once, with progress in the same commit."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from contracts.columns import own_schema, refined_schema
from contracts.model import Contract, Start
from lakehouse.added import effective
from lakehouse.aggregates.following import delta_of
from lakehouse.aggregates.table import LateTable
from lakehouse.anchor import AnchorState, merged_floors
from lakehouse.batches import Loaded, SectionCache, load
from lakehouse.begins import read_begins
from lakehouse.errors import CommitContested, EpochOver
from lakehouse.identity import TopicIdentity, verify_identity
from lakehouse.kinds import kinds_of, other_kinds
from lakehouse.lake import Lake
from lakehouse.lane_states import part_of, verify_lanes
from lakehouse.lanes import WHOLE, Lane
from lakehouse.plan import Earliest, GapOracle, all_held, chunks_of, plan
from lakehouse.progress import Partition, Writer
from lakehouse.restarts import Found, restarts_in
from lakehouse.segments import SectionRef
from lakehouse.stamps import stamped, without_state
from lakehouse.state.columns import toastable
from lakehouse.state.floors import raised
from lakehouse.state.settling import shaped
from lakehouse.state.snapshots import bounded, ended, observed, settled
from lakehouse.state.table import StateTable
from lakehouse.table import Contested
from lakehouse.tables import INDEXED, AnyTable, KeptTable, followers_of, tables_of
from lakehouse.tableset import TableSet
from lakehouse.unread import below, is_pause, unread
from lakehouse.upkeep import BUDGET, Upkeep, Upkept
from lakehouse.verdicts import Judged, judge

MAX_ROWS = 2_000_000  # of one Delta commit
ATTEMPTS = 20


@dataclass(frozen=True)
class CommitReport:
    """What one call committed."""

    stream: str
    rows: int  # accepted and rejected
    counts: Mapping[str, int]  # read, applied, quarantined, late, resent, and by rule and kind
    commits: int
    retries: int
    seconds: float
    watermark_ms: int | None
    versions: Mapping[str, int]  # table name -> version


class StreamTables:
    """The tables of one stream, for one lane of it. Holds snapshots as caches; the Delta log decides."""

    def __init__(
        self,
        lake: Lake,
        contract: Contract,
        *,
        pipeline: str,
        pins: Mapping[str, str] | None = None,
        epochs: Mapping[str, int] | None = None,
        version: str = "",
        max_rows: int = MAX_ROWS,
        accept_partial: bool = False,
        lane: Lane = WHOLE,
        trusting: bool = False,
    ) -> None:
        """Nothing is opened yet. trusting: a source's positions that begin again are no reason to stop."""
        self.lane = lane
        self._trusting = trusting
        self._written = contract
        self._lake = lake
        self._pipeline = pipeline
        self._epochs = dict(epochs or {})
        self._version = version
        self._max_rows = max_rows
        self._accept_partial = accept_partial
        self._pins = dict(pins or {})
        self._take(contract)
        self._known: tuple[float, dict[Partition, int]] = (float("inf"), {})

    def _take(self, contract: Contract) -> None:
        """Work by a contract: the written one, or that with the columns that the stream gained by itself."""
        self.contract = contract
        writer = Writer(self._pipeline, self._epochs, self.lane)
        self.tables, self._former = (
            tables_of(self._lake, contract, kinds(contract), writer, self._pins) for kinds in (kinds_of, other_kinds)
        )
        self.followers = followers_of(self._lake, contract, writer, self._pins)
        self._prepared = False
        self._upkeep: Upkeep | None = None

    @property
    def anchor(self) -> KeptTable:
        """Give the table whose progress is the stream's."""
        return self.tables[-1]

    def prepare(self) -> None:
        """Create the tables that are new, and bring the others to the contract's shape; does nothing a second time.

        Raises what lakehouse.errors says about tables that cannot be continued.
        """
        if not self._prepared:
            self._take(effective(self._lake, self._written))
            tables = TableSet(self._lake, self.contract, self._epochs, self.tables, self._former, self.lane)
            tables.prepare(accept_partial=self._accept_partial)
            for follower in self.followers:
                if not follower.open():
                    follower.create()
                follower.evolve()
            self._prepared = True

    def commit(
        self,
        refs: Sequence[SectionRef],
        *,
        gaps: GapOracle,
        earliest: Earliest = all_held,
        identity: TopicIdentity | None = None,
        now_ms: int,
    ) -> CommitReport:
        """Apply sections: what the tables hold already is left out, nothing is left out unseen.

        Where the stream has several lanes, what key changes of other lanes lead to is completed as well, also in a call
        without sections.

        Raises GapFound when records are missing before a section, CommitContested when others won every attempt,
        PositionsRestarted once all before that place is committed, and any other LakehouseError as its docstring says.
        Calling again with the same sections is always right.
        """
        started = time.monotonic()
        sections = SectionCache(self._lake, refs)
        total: Counter[str] = Counter()
        retries = 0
        commits = 0
        while True:
            try:
                self.prepare()
                for judged in self._chunks(refs, sections, (gaps, earliest), identity, now_ms):
                    total.update(judged.counts)
                    commits += 1
                commits += self._join()
                self._follow()
                break
            except Contested as error:
                retries += 1
                if retries >= ATTEMPTS:
                    raise CommitContested(f"stream {self.contract.stream}: {retries} attempts lost: {error}") from error
                time.sleep(random.uniform(0, 0.02 * min(retries, 10)))
        state = self.anchor.state()
        return CommitReport(
            stream=self.contract.stream,
            rows=total["applied"] + total["quarantined"],
            counts=dict(total),
            commits=commits,
            retries=retries,
            seconds=time.monotonic() - started,
            watermark_ms=state.watermark_ms if state else None,
            versions={table.name: table.version for table in self._all},
        )

    def maintain(self, budget: float = BUDGET) -> Upkept:
        """Do what upkeep is due, between two commits, for about so many seconds; never raises."""
        if not self._prepared:
            return Upkept()
        if self._upkeep is None:
            memory_ms = self.contract.state.delete_memory_ms
            self._upkeep = Upkeep(self._lake, self.contract.stream, self._all, self._pipeline, memory_ms, self.lane)
        return self._upkeep.run(budget)

    @property
    def index_bytes(self) -> int:
        """Give the memory of the key indexes, bytes."""
        return sum(table.indexed.index.nbytes for table in self._all if isinstance(table, INDEXED))

    @property
    def _all(self) -> tuple[AnyTable, ...]:
        return (*self.tables, *self.followers)

    def progress(self) -> dict[Partition, int]:
        """Give the lane's progress: the last applied offset of every partition that the stream ever committed."""
        self.prepare()
        self.anchor.open()
        state = self.anchor.state()
        return self._progress(state.partitions if state else (), state)

    def _own_state(self) -> AnchorState:
        """Give what the lane's newest commit said; the anchor must be open. Raises LanesOver."""
        state = self.anchor.state()
        verify_lanes(state, self.lane)
        return part_of(state or AnchorState(self._pipeline, self.contract.stream), self.lane)

    def _progress(self, partitions: Iterable[Partition], state: AnchorState | None) -> dict[Partition, int]:
        """Give the lane's progress; where other lanes have begun a partition, this one begins where they did."""
        progress = self.anchor.progress(partitions)
        begun = {} if self.lane.alone or state is None else state.partitions
        for partition in partitions:
            known = begun.get(partition)
            if known and known.epoch == self._epochs.get(partition[0], 0):
                progress.setdefault(partition, known.begins - 1)
        return progress

    def _join(self) -> int:
        """Commit what other lanes' key changes say of this lane's rows; gives how many commits were made."""
        if self.lane.alone or not isinstance(self.anchor, StateTable) or not toastable(self.contract):
            return 0
        self.anchor.open()
        own = self._own_state()
        if not own.partitions:
            return 0
        state = replace(own, version=self._version, commit=uuid.uuid4().hex, last_counts={}, ranges=())
        changes = {kind: c for kind, c in self.anchor.stream.joined(state.floors).items() if not c.empty}
        for table in self.tables:
            if isinstance(table, StateTable) and table.kind.name in changes:
                self._verify_columns(table)
                table.complete(changes[table.kind.name], state if table is self.anchor else without_state(state))
        self.anchor.stream.settled()
        return len(changes)

    def _chunks(
        self,
        refs: Sequence[SectionRef],
        sections: SectionCache,
        oracles: tuple[GapOracle, Earliest],
        identity: TopicIdentity | None,
        now_ms: int,
    ) -> Iterator[Judged]:
        """Commit the sections in chunks of bounded rows; gives each chunk once it is committed."""
        self.anchor.open()
        state, whole = self._own_state(), self.anchor.state()
        partitions = {(r.topic, r.partition) for ref in refs for r in ref.ranges}
        progress = self._progress(partitions, whole)
        self._verify(whole or state, identity)
        waiting = self._waiting(state, identity, partitions, oracles[0], now_ms)
        for steps in chunks_of(plan(refs, progress, *oracles), self._max_rows):
            loaded = self._completed(load(sections, steps))
            found = Found() if self._trusting else restarts_in(loaded, state, self._epochs)
            loaded = loaded.up_to(found.lasts) if found else loaded
            judged = self._floored(judge(self.contract, loaded, state, self._epochs, now_ms, waiting), state)
            waiting = ()
            judged = self._sorted(judged, loaded)
            snapshots, judged = self._compared(judged, state, identity, (progress, loaded.lasts, oracles[0]), now_ms)
            lives = {**state.lives, **found.lives}
            state = stamped(state, steps, loaded, judged, identity)
            state = replace(state, version=self._version, snapshots=snapshots, lives=lives)
            self._commit_tables(loaded, judged, state)
            progress |= loaded.lasts
            self._known = (time.monotonic(), dict(progress))
            yield judged
            if found:
                raise found.problem(self.contract.stream)

    def _waiting(
        self,
        state: AnchorState,
        identity: TopicIdentity | None,
        read: Collection[Partition],
        gaps: GapOracle,
        now_ms: int,
    ) -> Collection[Partition]:
        """Give the partitions that are not read in this call and have records, when a stream begins or has paused."""
        if identity is None or not is_pause(state, self.contract.event_time.idle_timeout_ms, now_ms):
            return ()
        others = {p: end for p, end in identity.ends.items() if p not in read}
        return unread(others, self._progress(others, self.anchor.state()), gaps)

    def _completed(self, loaded: Loaded) -> Loaded:
        """Give a batch with all of the stream's columns: null in what was refined before one of them came.

        Raises Contested when the stream has gained a column since the tables were prepared.
        """
        wanted = refined_schema(self.contract)
        if loaded.rows.column_names == wanted.names:
            return loaded
        if gained := set(loaded.rows.column_names) - set(wanted.names):
            raise self._outgrown(gained)
        return replace(loaded, rows=shaped(loaded.rows, wanted, {}))

    def _verify_columns(self, table: KeptTable) -> None:
        """Raise Contested when another committer gave the table columns of the stream: ours would write null there."""
        if not isinstance(table, StateTable):
            return
        unknown = set(table.columns.names) - set(table.shape.columns.names)
        if gained := unknown & set(own_schema(effective(self._lake, self._written)).names if unknown else ()):
            raise self._outgrown(gained)

    def _outgrown(self, gained: Collection[str]) -> Contested:
        """Let the tables be prepared again, with the columns that the stream gained; gives what to raise."""
        self._prepared = False
        return Contested(f"stream {self.contract.stream}: new columns {sorted(gained)}")

    def _floored(self, judged: Judged, state: AnchorState) -> Judged:
        """Give the batch with the floors that truncates set, before and in it."""
        new = raised(self.contract, judged.batch, self._epochs)
        floors = merged_floors(state.floors, new)
        batch = replace(judged.batch, floors=floors, raised=merged_floors({}, new))
        return replace(judged, batch=batch)

    def _sorted(self, judged: Judged, loaded: Loaded) -> Judged:
        """Give the batch with its rows sorted for the stream's aggregates, and count those they do not."""
        late = next((table for table in self.tables if isinstance(table, LateTable)), None)
        if late is None:
            return judged
        batch, missed = late.stream.sort(judged.batch, loaded.cuts, loaded.lasts)
        counts = Counter(judged.counts)
        counts["missed"] = missed
        return replace(judged, batch=batch, counts=counts)

    def _compared(  # noqa: PLR0917 (what a commit knows)
        self,
        judged: Judged,
        state: AnchorState,
        identity: TopicIdentity | None,
        read: tuple[Mapping[Partition, int], Mapping[Partition, int], GapOracle],
        now_ms: int,
    ) -> tuple[dict[str, dict[str, Any]], Judged]:
        """Follow the source's snapshots: what rows of current are in none of them, once they are complete.

        read: the progress before the batch, what it brings of it, and who knows of gaps.
        """
        if not isinstance(self.anchor, StateTable):
            return {}, judged
        snapshots = observed(self.contract, judged.batch, state.snapshots, self._epochs, now_ms)
        snapshots = ended(self.contract, snapshots, judged.partitions, now_ms)
        if identity is not None:
            asked_ms = now_ms - int((time.monotonic() - identity.taken_at) * 1000)
            snapshots = bounded(snapshots, state.snapshots, identity.ends, asked_ms)
        progress, lasts, gaps = read
        reached = {**self.anchor.progress(state.partitions), **progress, **lasts}
        begins = partial(self._begins, {**state.topics, **(identity.ids if identity else {})})
        left = partial(below, reached=reached, coming=lasts, begins=begins, gaps=gaps)
        snapshots, swept = settled(self.contract, snapshots, left, judged.batch, self.anchor.stream)
        kept = {topic: one.to_json() for topic, one in snapshots.items()}
        return kept, replace(judged, batch=replace(judged.batch, swept=swept)) if swept else judged

    def _begins(self, ids: Mapping[str, str]) -> Mapping[Partition, int]:
        """Give where the stream begins in the partitions of topics (with their ids), as its first start recorded."""
        if self.contract.start is Start.EARLIEST:
            return {}
        return read_begins(self._lake, self._pipeline, self.contract.stream, ids) or {}

    def _verify(self, state: AnchorState, identity: TopicIdentity | None) -> None:
        """Raise when the topics are not those that the tables were filled from, or their epoch is over."""
        known = dict(state.topics)
        for topic, stored in state.epochs().items():
            own = self._epochs.get(topic, 0)
            if own < stored:
                raise EpochOver(self.contract.stream, topic, stored, own)
            if own > stored:  # the operator said so
                known.pop(topic, None)
        if identity is not None:
            read_at, progress = self._known
            comparable = progress if read_at < identity.taken_at else {}
            for problem in verify_identity(self.contract.stream, known, comparable, identity):
                raise problem

    def _commit_tables(self, loaded: Loaded, judged: Judged, state: AnchorState) -> None:
        """Commit to each table in order; the anchor comes last and always."""
        for table in self.tables[:-1]:
            batch = table.lacking(judged.batch, loaded.cuts, loaded.lasts)
            if batch is not None:
                self._verify_columns(table)
                own = table.progress(loaded.lasts)
                progress = {p: max(last, own.get(p, last)) for p, last in loaded.lasts.items()}
                table.apply(batch, progress, without_state(state))
        seen = {table.kind.name: (table.table_id, table.version) for table in self.tables[:-1]}
        self._verify_columns(self.anchor)
        current = self.anchor if self.followers and isinstance(self.anchor, StateTable) else None
        delta = None if current is None else delta_of(current, judged.batch, self.followers)
        self.anchor.apply(judged.batch, loaded.lasts, replace(state, tables=seen))
        if current is not None and delta is not None:
            for follower in self.followers:
                follower.follow(current, delta, state)

    def _follow(self) -> None:
        """Bring the tables that follow current to its version, where one did not see a commit."""
        if self.followers and isinstance(self.anchor, StateTable) and (state := self.anchor.state()) is not None:
            for follower in self.followers:
                follower.catch_up(self.anchor, state)

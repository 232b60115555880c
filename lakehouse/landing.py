"""Land: records that were read again become rows at their own position, beside the job that fills the tables.

What is new is told by the table of changes alone: a record whose Kafka coordinates (and epoch) it holds is not added a
second time. The state's tables come first (applying a change twice is harmless: positions decide), then the changes,
through the very snapshot in which their coordinates were looked for, then the mark in the quarantine. Killed in between
and done again, all that was missing is added, and nothing twice. Progress and watermark stay the job's: each commit
repeats the state that its table's newest one holds.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.columns import COMMITTED_META, WITHHELD_META, changes_schema
from contracts.model import Action, Contract
from lakehouse.added import effective
from lakehouse.aggregates.recount import recount
from lakehouse.anchor import AnchorState, Floors, merged_floors
from lakehouse.before import Before
from lakehouse.errors import CommitContested, NotBegun, SchemaRefused
from lakehouse.groups import NONE, Flags, Ints, Partition, int64s
from lakehouse.highest import judged, positions
from lakehouse.kind import Batch
from lakehouse.kinds import kinds_of
from lakehouse.lake import Lake
from lakehouse.merge.keys import keys_of
from lakehouse.order import NOTHING_BEGUN, Begun, stands_above
from lakehouse.places import PLACE, among, held_places, texts
from lakehouse.progress import Writer, replay_id
from lakehouse.quarantined import COORDINATES, LOCATION, Waiting
from lakehouse.segments import Section
from lakehouse.state.build import begun_of, waiting
from lakehouse.state.columns import key_names
from lakehouse.state.floors import raised
from lakehouse.state.table import ANCHOR, StateTable
from lakehouse.table import Contested, StreamTable
from lakehouse.tables import KeptTable, tables_of
from lakehouse.verdicts import epoch_column

ATTEMPTS = 50
# Told which event times (ms, lowest and highest) rows were added for: windows that they touch are to be counted again.
# Called after the rows are there and before the records are marked resolved, so that a repair that was killed tells it
# again; to be told twice must be harmless.
Touched = Callable[[int, int], None]


@dataclass
class Landed:
    """What became of records that were read again; the tables hold one row per record (PLACE and more)."""

    added: int = 0  # rows that the tables lacked
    resolved: int = 0  # records that waited in the quarantine and do no longer
    held: int = 0  # rows that were there
    quarantined: int = 0  # records that were nowhere, and wait now
    counted: int = 0  # records that reach no table
    failing: list[pa.Table] = field(default_factory=list)  # PLACE, _stage, _rules, _reason
    too_old: list[pa.Table] = field(default_factory=list)  # PLACE


class Landing:
    """Lands records in the tables of one stream, whatever number of lanes fills them."""

    def __init__(  # noqa: PLR0917 (what a writer of tables knows)
        self,
        lake: Lake,
        contract: Contract,
        pipeline: str,
        pins: Mapping[str, str],
        version: str,
        touched: Touched | None = None,
    ) -> None:
        self.contract = effective(lake, contract)
        self._lake, self._pipeline, self._version = lake, pipeline, version
        self._pins = dict(pins)
        self._touched = touched or self._recount
        self._keeps_quarantine = "quarantine" in contract.tables
        self._waiting = Waiting(lake, self.contract, pipeline, pins)
        self._opened: dict[tuple[tuple[str, int], ...], tuple[KeptTable, ...]] = {}
        self.before = Before(lake)

    def land(self, section: Section, epochs: Mapping[str, int], now_ms: int) -> Landed:
        """Land what today's contract makes of some records, all of topics in these epochs.

        The stream must have committed all their offsets. Raises NotBegun and SchemaRefused when its tables are not what
        the contract wants, CommitContested when others won every attempt, and what lakehouse.errors says of tables.
        """
        landed = Landed()
        for attempt in range(ATTEMPTS):
            try:
                if len(_all_places(section)):
                    _Attempt(self, section, epochs, now_ms, landed).run()
                return landed
            except Contested as error:
                last = error
                time.sleep(random.uniform(0, 0.05 * min(attempt + 1, 10)))
        raise CommitContested(f"stream {self.contract.stream}: {ATTEMPTS} attempts lost: {last}") from last

    def _recount(self, first_ms: int, last_ms: int) -> None:
        recount(self._lake, self.contract, self._pipeline, self._pins, first_ms, last_ms)

    def tables(self, epochs: Mapping[str, int]) -> tuple[KeptTable, ...]:
        """Open the stream's tables, the anchor last. Raises NotBegun and SchemaRefused."""
        known = tuple(sorted(epochs.items()))
        if known not in self._opened:
            writer = Writer(self._pipeline, dict(epochs))
            self._opened[known] = tables_of(self._lake, self.contract, kinds_of(self.contract), writer, self._pins)
        tables = self._opened[known]
        for table in reversed(tables):  # the anchor first: what it saw of the others is there
            if not table.open():
                raise NotBegun(
                    f"stream {self.contract.stream}: there is no table {table.name} yet. Start the pipeline with this "
                    "contract first: a start makes the tables."
                )
            if added := table.verify():
                names = ", ".join(column.name for column in added)
                raise SchemaRefused(
                    f"table {table.name} lacks the columns {names}. Start the pipeline with this contract once: a "
                    "start adds them."
                )
        return tables


class _Attempt:
    """One attempt, on one snapshot of each table."""

    def __init__(
        self, landing: Landing, section: Section, epochs: Mapping[str, int], now_ms: int, landed: Landed
    ) -> None:
        self._landing, self._contract, self._lake = landing, landing.contract, landing._lake
        self._epochs, self._now_ms, self._landed = epochs, now_ms, landed
        self._topics = tuple(sorted({str(t) for t in pc.unique(_all_places(section)["_topic"]).to_pylist()}))
        rows, rejects, others, told = (
            part.append_column("_epoch", epoch_column(part, self._topics, epochs))
            for part in (section.rows, section.rejects, section.others, section.withheld)
        )
        self._rows, self._rejects, self._others, self._told = rows, rejects, others, told

    def run(self) -> None:
        """Land the section; raises Contested when somebody else committed to one of the tables."""
        tables = self._landing.tables(self._epochs)
        by_kind = {table.kind.name: table for table in tables}
        anchor, state = tables[-1], tables[-1].state()
        if state is None:
            raise NotBegun(f"stream {self._contract.stream} has committed nothing yet: there is nothing to repair.")
        self._lives = {topic: state.life(topic) for topic in self._topics}
        waits = self._open_quarantine()
        changes = by_kind.get("changes")
        places = pa.concat_tables([part.select(PLACE) for part in (self._rows, self._rejects, self._others)])
        stored = held_places(self._lake, changes, places, self._in_life)
        held = self._among(self._rows, stored)
        old = self._too_old(waits) & ~held
        new = self._rows.filter(pa.array(~held & ~old))
        gone = self._among(self._told, stored) | self._among(self._told, self._rows.filter(pa.array(old)).select(PLACE))
        batch = self._batch(new, self._told.filter(pa.array(~gone)), waits, state, changes)
        self._quarantine(by_kind.get("quarantine"), stored, state)
        self._commit_state(tables, batch, state)
        if changes is not None and len(new):
            assert isinstance(changes, StreamTable)
            told = self._repeated(changes, state, batch.raised if changes is anchor else {})
            changes.add(batch, {replay_id(state.pipeline, state.stream): self._now_ms}, told)
        self._landed.added += len(new)
        self._mark(waits, self._rows.filter(pa.array(~old)), self._rows.filter(pa.array(old)))
        self._landed.held = len(self._rows) - int(old.sum()) - self._landed.added
        self._landed.counted = len(self._others)
        self._landed.failing = [self._rejects.select([*PLACE, "_stage", "_rules", "_reason"])]
        self._landed.too_old = [self._rows.filter(pa.array(old)).select(PLACE)]

    # --- what is known of the records

    def _in_life(self, places: pa.Table) -> pa.Table:
        """Give places with the first epoch since their topic was made for its later ones: an offset is there once.

        Lanes that were not level begin an epoch at different offsets.
        """
        for topic, life in self._lives.items():
            if life.begins:
                later = pc.and_(pc.equal(places["_topic"], topic), pc.greater(places["_epoch"], life.start))
                at = places.schema.get_field_index("_epoch")
                first = pa.scalar(life.start, places.schema.field(at).type)
                places = places.set_column(at, "_epoch", pc.if_else(later, first, places["_epoch"]))
        return places

    def _among(self, rows: pa.Table, places: pa.Table) -> Flags:
        """Mark the rows whose place is among others, whatever the epoch is called."""
        return among(self._in_life(rows), self._in_life(places))

    def _open_quarantine(self) -> pa.Table | None:
        """Give all records that wait, with their epoch; None for a stream that keeps no quarantine."""
        if not self._landing._keeps_quarantine or not self._landing._waiting.open():
            return None
        names = ["_epoch", "_key", "_op", "_position_major", "_position_minor", "_event_time", "_ingested_at"]
        rows = self._landing._waiting.rows([*COORDINATES, *names])
        place = rows.schema.get_field_index("_epoch")
        return rows.set_column(place, rows.schema.field(place), pc.fill_null(rows["_epoch"], 0))

    def _too_old(self, waits: pa.Table | None) -> Flags:
        """Mark rows that came so long ago that deletes after them may be forgotten: they could bring a row back.

        A record came when the pipeline read it, where the quarantine says so, else when Kafka got it.
        """
        if not self._contract.keeps_state or not len(self._rows):
            return np.zeros(len(self._rows), np.bool_)
        came = self._rows["_kafka_time"].cast(pa.int64()).combine_chunks()
        if waits is not None:
            at = pc.index_in(texts(self._in_life(self._rows)), value_set=texts(self._in_life(waits)))
            came = pc.coalesce(waits["_ingested_at"].cast(pa.int64()).combine_chunks().take(at), came)
        bound = (self._now_ms - self._contract.state.delete_memory_ms) * 1000
        marks: Flags = pc.fill_null(pc.less(came, bound), True).to_numpy(zero_copy_only=False)
        return marks

    # --- what is done to the tables

    def _batch(
        self, new: pa.Table, told: pa.Table, waits: pa.Table | None, state: AnchorState, changes: KeptTable | None
    ) -> Batch:
        """Give the new rows with their verdicts, and what the state's tables must know beside them."""
        read = changes if isinstance(changes, StreamTable) else None
        highest = self._landing.before.highest(new, self._topics, self._epochs, read)
        rows = self._judged(new, highest)
        afresh, notes = self._notes(new, told, waits)
        withheld = [part for part in (told, notes) if len(part)]
        batch = Batch(
            rows,
            self._rejects.slice(0, 0),
            pa.concat_tables(withheld, promote_options="default") if withheld else WITHHELD_META.empty_table(),
            self._positions_before(new, highest),
            self._begun(new),
            afresh=afresh,
        )
        floors = raised(self._contract, batch, self._epochs) if len(rows) else {}
        made = merged_floors({}, floors)
        return replace(batch, floors=merged_floors(state.floors, floors), raised=made)

    def _judged(self, new: pa.Table, highest: Ints) -> pa.Table:
        """Give rows with the columns that commits fill: resent by what came before, and never late.

        What is read again is in time: the windows that its rows belong to are counted again.
        """
        resent = judged(new) & ~stands_above(positions(new), highest) if len(new) else np.zeros(0, np.bool_)
        verdicts = {
            "_late": pa.array(np.zeros(len(new), np.bool_)),
            "_lateness_ms": pa.array(np.zeros(len(new), np.int64)),
            "_resent": pa.array(resent),
            "_epoch": new["_epoch"],
        }
        rows = new.drop_columns(["_epoch"])
        for column in COMMITTED_META:
            rows = rows.append_column(column, verdicts[column.name].cast(column.type))
        return rows.select([name for name in changes_schema(self._contract).names if name in rows.column_names])

    @staticmethod
    def _positions_before(new: pa.Table, highest: Ints) -> dict[Partition, tuple[int, int]]:
        """Give the highest position of the partitions before their first row that has none."""
        found: dict[Partition, tuple[int, int]] = {}
        for row in np.flatnonzero(new["_position_minor"].is_null().to_numpy()).tolist():  # such rows are rare
            place = new["_topic"][row].as_py(), new["_partition"][row].as_py()
            if highest[row, 0] != NONE:
                found.setdefault(place, (int(highest[row, 0]), int(highest[row, 1]) // 2))
        return found

    def _begun(self, new: pa.Table) -> Begun:
        """Give the snapshots of the changes, where a streamed row must be ranked by the one before it."""
        first = pc.and_(pc.is_null(new["_position_major"]), pc.is_null(new["_snapshot"]))
        asked = pc.any(pc.and_(first, pc.is_valid(new["_position_minor"]))).as_py()
        if not asked or "changes" not in self._contract.tables:
            return NOTHING_BEGUN
        begun = begun_of(self._lake, f"{self._contract.stream}_changes")
        every = ((epoch, p, own) for epoch, known in begun.items() for p, own in known.items())
        return {p: own for epoch, p, own in every if self._epochs.get(p[0], 0) == epoch}

    def _notes(self, new: pa.Table, told: pa.Table, waits: pa.Table | None) -> tuple[bool, pa.Table]:
        """Give what else waits of the keys, and whether that is all: then what rows say of it is told anew.

        Not where a rule may have dropped a change: nothing but the row's mark remembers it.
        """
        nothing = WITHHELD_META.empty_table()
        drops = any(rule.action is Action.DROP for rule in self._contract.rules)
        if waits is None or drops or not self._contract.keeps_state or not (len(new) or len(told)):
            return False, nothing
        leaves = pa.concat_tables([part.select(PLACE) for part in (new, self._others)])
        left = waits.filter(pa.array(~self._among(waits, leaves)))
        left = left.filter(pc.and_(pc.is_valid(left["_key"]), pc.is_valid(left["_op"])))
        notes = pa.concat_tables([nothing, *self._by_epoch(left)], promote_options="default")
        if not len(notes):
            return True, nothing
        own = pa.concat_tables([part.select(key_names(self._contract)) for part in (new, told) if len(part)])
        return True, notes.filter(pa.array(np.isin(self._numbers(notes), self._numbers(own.drop_null()))))

    def _by_epoch(self, rows: pa.Table) -> Iterator[pa.Table]:
        """Give quarantined records as withheld changes, each of its epoch."""
        for epoch in pc.unique(rows["_epoch"]):
            notes = waiting(rows.filter(pc.equal(rows["_epoch"], epoch)), self._contract)
            if len(notes):
                yield notes.append_column("_epoch", pa.repeat(epoch, len(notes)))

    def _numbers(self, rows: pa.Table) -> Ints:
        """Give a number for each row's key; of two keys with the same one both are meant, which does no harm."""
        return keys_of([rows[name] for name in key_names(self._contract)]).low

    def _quarantine(self, table: KeptTable | None, stored: pa.Table, state: AnchorState) -> None:
        """Put records that no table holds into the quarantine."""
        if table is None or not len(self._rejects):
            return
        assert isinstance(table, StreamTable)
        every = self._landing._waiting.rows([*PLACE], resolved=True)
        every = every.set_column(3, every.schema.field("_epoch"), pc.fill_null(every["_epoch"], 0))
        known = pa.concat_tables([stored, every.select(PLACE)], promote_options="permissive")
        rejects = self._rejects.filter(pa.array(~self._among(self._rejects, known)))
        if len(rejects) and table.version == self._landing._waiting.version:
            ids = {replay_id(state.pipeline, state.stream): self._now_ms}
            table.add(Batch(self._rows.slice(0, 0), rejects), ids, self._repeated(table, state, {}))
            self._landed.quarantined += len(rejects)
        elif len(rejects):
            raise Contested(f"table {table.name}: others committed meanwhile")

    def _commit_state(self, tables: tuple[KeptTable, ...], batch: Batch, state: AnchorState) -> None:
        if not (len(batch.rows) or len(batch.withheld)):
            return
        for table in tables:
            if isinstance(table, StateTable):
                lifts = table.kind.name == ANCHOR and bool(batch.raised)
                if lifts or not table.stream.change_of(table.kind.name, batch).empty:
                    table.apply(batch, {}, self._repeated(table, state, batch.raised if lifts else {}))

    def _repeated(self, table: KeptTable, anchor: AnchorState, floors: Floors) -> AnchorState:
        """Give the state that a table's newest commit holds, to be said again, with the floors that truncates set."""
        told = table.state() or replace(anchor, partitions={}, watermark_ms=None, tables={})
        made = replace(told, version=self._landing._version, commit=uuid.uuid4().hex, last_counts={}, ranges=())
        if not floors:
            return made
        parts = {n: replace(part, floors=merged_floors(part.floors, floors)) for n, part in made.parts.items()}
        return replace(made, floors=merged_floors(made.floors, floors), parts=parts)

    def _mark(self, waits: pa.Table | None, landed: pa.Table, old: pa.Table) -> None:
        """Tell which times were touched, also of rows that a run before may have left, then mark what is resolved."""
        done = pa.concat_tables([part.select(PLACE) for part in (self._rows, self._others)])
        done = done.filter(pa.array(~self._among(done, old.select(PLACE))))
        resolved = None if waits is None else waits.filter(pa.array(self._among(waits, done)))
        times = landed["_event_time"].cast(pa.int64())
        if len(times):  # one without an event time is in no window, which <stream>_late has to say
            first, last = (int(value or 0) // 1000 for value in pc.min_max(times).as_py().values())
            self._landing._touched(first, last)
        if resolved is not None and len(resolved):
            self._landing._waiting.resolve(int64s(resolved[LOCATION]), self._now_ms)
            self._landed.resolved += len(_unique(resolved))


def _all_places(section: Section) -> pa.Table:
    return pa.concat_tables([p.select(COORDINATES) for p in (section.rows, section.rejects, section.others)])


def _unique(places: pa.Table) -> pa.Array:
    return pc.unique(texts(places))

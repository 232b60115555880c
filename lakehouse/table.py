"""One Delta table of a stream: its snapshot, its progress, the state at its log's tail, and one commit at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from contracts.columns import QUARANTINE
from lakehouse.anchor import METADATA_KEY, AnchorState
from lakehouse.appending import append
from lakehouse.errors import CommitContested, LakehouseError
from lakehouse.kind import AppendKind, Apply, Batch
from lakehouse.lake import Lake
from lakehouse.lane_states import verify_lanes
from lakehouse.lanes import Lane
from lakehouse.progress import Partition, ProgressReader, Writer
from lakehouse.shape import STATISTICS, TableShape
from lakehouse.tail import LogTail

EVOLVE_ATTEMPTS = 5
LANE_RETRIES = 100  # of one append, against other lanes'


class Contested(Exception):  # noqa: N818
    """Somebody else committed since our snapshot was read: read the log again, then decide."""


class StreamTable:
    """Gives one table's progress and state at one snapshot, and commits on top of that snapshot only."""

    def __init__(self, lake: Lake, kind: AppendKind, shape: TableShape, writer: Writer) -> None:
        self.kind = kind
        self.shape = shape
        self._lake = lake
        self._writer = writer
        self._progress = ProgressReader(writer)
        self._table: DeltaTable | None = None
        self._tail = LogTail(lake, shape.name, writer.pipeline)

    @property
    def name(self) -> str:
        """Give the table's name in the lake."""
        return self.shape.name

    @property
    def delta(self) -> DeltaTable:
        """Give the snapshot; the table must be open."""
        assert self._table is not None, f"table {self.name} is not open"
        return self._table

    @property
    def version(self) -> int:
        """Give the snapshot's version."""
        return self.delta.version()

    @property
    def table_id(self) -> str:
        """Give the id that the table got when it was created."""
        return str(self.delta.metadata().id)

    def open(self) -> bool:
        """Read the newest snapshot; False when there is no such table.

        Raises TableVanished or TableWentBack when this process saw the table, or a higher version of it, before.
        """
        with self._lake.explained(f"open table {self.name}"):
            if self._table is None:
                self._table = self._load()
                return self._table is not None
        before = self.version
        try:
            self._table.update_incremental()
        except (DeltaError, OSError) as error:
            if self._tail.holds(before):
                raise self._lake.explain(f"read the log of table {self.name}", error) from error
        if not self._tail.holds(self.version):
            self._reload(before)
        return True

    def create(self) -> None:
        """Create the table, empty; another process may do it at the same time."""
        try:
            with self._lake.explained(f"create table {self.name}"):
                self._table = DeltaTable.create(
                    self._lake.table_uri(self.name),
                    self.shape.columns,
                    mode="error",
                    partition_by=list(self.shape.partition_by),
                    configuration=self.shape.configuration(),
                    storage_options=self._options,
                    raise_if_key_not_exists=False,
                )
        except LakehouseError:
            if not self.open():
                raise

    def verify(self) -> list[pa.Field]:
        """Give the columns that the contract gained; changes nothing.

        Raises KeyPinChanged or SchemaRefused when the table cannot become what the contract wants.
        """
        metadata = self.delta.metadata()
        added = self.shape.added(self.name, self.delta.schema(), metadata.partition_columns)
        self.shape.verify_pins(metadata.configuration, {field.name for field in added})
        return added

    def evolve(self) -> None:
        """Give the table the columns that the contract gained, in a commit of its own.

        Raises KeyPinChanged or SchemaRefused when the table cannot become what the contract wants, CommitContested when
        others won every attempt.
        """
        for left in reversed(range(EVOLVE_ATTEMPTS)):
            try:
                self._evolve()
                return
            except CommitContested:
                if not left:
                    raise
                self.open()

    def _evolve(self) -> None:
        added, configuration = self.verify(), self.delta.metadata().configuration
        changed = {k: v for k, v in self.shape.configuration().items() if v is not None and configuration.get(k) != v}
        with self._lake.explained(f"change the columns of table {self.name}"):
            if changed.keys() - {STATISTICS} or (changed and added):  # before the columns: no private statistics ever
                self.delta.alter.set_table_properties(changed, raise_if_not_exists=False)
            elif changed:
                self.delta.alter.set_table_properties(changed)
            if added:
                self.delta.alter.add_columns([Field.from_arrow(field) for field in added])

    def progress(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Give the last applied offset of each partition that has one, at the snapshot."""
        return self._progress.read(self.delta, partitions)

    def lane_progress(self, partitions: Iterable[Partition], lane: Lane) -> dict[Partition, int]:
        """Give the last applied offset of each partition that has one in a lane, at the snapshot."""
        return ProgressReader(self._writer.in_lane(lane)).read(self.delta, partitions)

    def committed_ms(self) -> int | None:
        """Give when the snapshot's version was committed (ms); None when the log no longer says it."""
        return self._tail.committed_ms(self.version)

    def state(self) -> AnchorState | None:
        """Give what the newest commit of our pipeline says, at the snapshot; None in a table never filled.

        Raises RestoredTable when RESTORE was run since, OtherPipeline when another pipeline fills the table, and
        StateMissing when the log was cut off before such a commit.
        """
        return self._tail.state(self.version)

    def lacking(self, batch: Batch, cuts: Mapping[Partition, int], lasts: Mapping[Partition, int]) -> Batch | None:
        """Give what the table still lacks of a batch that begins at cuts, by its own progress; None for nothing.

        Its own progress is ahead when a commit of the anchor failed. Raises LanesOver when the stream has another
        number of lanes by now.
        """
        if not self.kind.concerns(batch):
            return None
        self.open()
        verify_lanes(self.state(), self._writer.lane)
        left = batch.beyond(self.progress(lasts), cuts)
        return left if self.kind.concerns(left) else None

    def apply(self, batch: Batch, progress: Mapping[Partition, int], state: AnchorState) -> None:
        """Apply a batch on top of the snapshot by the kind's verb, with the new progress and state in the same commit.

        Raises Contested when the snapshot is no longer the newest; LakehouseError when the storage refuses, which may
        leave it open whether the commit was made: progress tells, once it can be read.
        """
        self._apply(self.kind.apply, batch, progress, state)

    def apply_progress(self, progress: Mapping[Partition, int], state: AnchorState) -> None:
        """Commit progress alone; raises as apply does."""
        self._apply(_append_nothing, NOTHING, progress, state)

    def commit_ids(self, ids: Mapping[str, int], state: AnchorState) -> None:
        """Commit progress under these application ids, with a state, and nothing else; raises as apply does."""
        self._put(_append_nothing, NOTHING, [Transaction(app, offset) for app, offset in ids.items()], state)

    def add(self, batch: Batch, ids: Mapping[str, int], state: AnchorState) -> None:
        """Apply a batch beside the progress, under other application ids; raises as apply does."""
        self._put(self.kind.apply, batch, [Transaction(app, number) for app, number in ids.items()], state)

    def _apply(self, apply: Apply, batch: Batch, progress: Mapping[Partition, int], state: AnchorState) -> None:
        base = self.version
        self._put(apply, batch, self._progress.transactions(progress), state)
        if self.version == base + 1:
            self._progress.wrote(self.delta, base, progress)

    def _put(self, apply: Apply, batch: Batch, transactions: list[Transaction], state: AnchorState) -> None:
        base = self.version
        properties = CommitProperties(
            custom_metadata={METADATA_KEY: state.to_json()},
            # On top of this snapshot or not at all; appends of other lanes, under ids of their own, may come between.
            max_commit_retries=0 if self._writer.lane.alone else LANE_RETRIES,
            app_transactions=transactions,
        )
        try:
            apply(self.delta, batch, properties)
        except CommitFailedError as error:
            # A put that was retried by the client meets its own first try.
            if not self._landed(state.commit, base):
                raise Contested(f"table {self.name} at version {base}: {error}") from error
        except (DeltaError, OSError) as error:
            if not self._landed(state.commit, base):
                raise self._lake.explain(f"commit to table {self.name}", error) from error
        if self.version == base + 1:
            self._tail.wrote(self.version, state)

    @property
    def _options(self) -> dict[str, str]:
        return dict(self._lake.storage_options)

    def _load(self) -> DeltaTable | None:
        try:
            return DeltaTable(self._lake.table_uri(self.name), storage_options=self._options)
        except TableNotFoundError:
            return None

    def _landed(self, commit: str, base: int) -> bool:
        """Read the log back after a failure that may have come after the commit: is our commit there?"""
        return self.open() and self._tail.has_made(commit, base, self.version)

    def _reload(self, before: int) -> None:
        """Read the log afresh: our version's entry is gone, because the log was cleaned up or the table replaced."""
        with self._lake.explained(f"open table {self.name}"):
            now = self._load()
        if now is None or now.version() < before or str(now.metadata().id) != self.table_id:
            raise self._tail.gone_back(before, now.version() if now else None)
        self._table = now


NOTHING = Batch(pa.table({}), QUARANTINE.empty_table())


def _append_nothing(table: DeltaTable, _batch: Batch, properties: CommitProperties) -> None:
    append(table, pa.schema(table.schema().to_arrow()).empty_table(), properties)

"""One Delta table of a stream: its snapshot, its progress, the state at its log's tail, and one commit at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from lakehouse.anchor import METADATA_KEY, AnchorState
from lakehouse.errors import (
    LakehouseError,
    OtherPipeline,
    RestoredTable,
    StateMissing,
    TableVanished,
    TableWentBack,
)
from lakehouse.kind import Apply, Batch, TableKind
from lakehouse.lake import Lake
from lakehouse.progress import Partition, ProgressReader
from lakehouse.shape import STATISTICS, TableShape


class Contested(Exception):  # noqa: N818
    """Somebody else committed since our snapshot was read: read the log again, then decide."""


@dataclass(frozen=True)
class Tail:
    """The state that the newest commit of ours says, and that commit's version; state None in a table never filled."""

    version: int
    state: AnchorState | None


class StreamTable:
    """Gives one table's progress and state at one snapshot, and commits on top of that snapshot only."""

    def __init__(
        self, lake: Lake, kind: TableKind, shape: TableShape, pipeline: str, epochs: Mapping[str, int]
    ) -> None:
        self.kind = kind
        self.shape = shape
        self._lake = lake
        self._pipeline = pipeline
        self._progress = ProgressReader(pipeline, epochs)
        self._table: DeltaTable | None = None
        self._tail = Tail(-1, None)

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
            if self._lake.exists(self._commit_path(before)):
                raise self._lake.explain(f"read the log of table {self.name}", error) from error
        if not self._lake.exists(self._commit_path(self.version)):
            self._refuse_to_go_back(before)
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

        Raises KeyPinChanged or SchemaRefused when the table cannot become what the contract wants.
        """
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

    def state(self) -> AnchorState | None:
        """Give what the newest commit of our pipeline says, at the snapshot; None in a table never filled.

        Raises RestoredTable when RESTORE was run since, OtherPipeline when another pipeline fills the table, and
        StateMissing when the log was cut off before such a commit.
        """
        if self._tail.version != self.version:
            self._tail = Tail(self.version, self._read_tail())
        return self._tail.state

    def commit(
        self,
        batch: Batch,
        progress: Mapping[Partition, int],
        state: AnchorState,
        apply: Apply | None = None,
    ) -> None:
        """Apply a batch on top of the snapshot by the kind's verb, with the new progress and state in the same commit.

        Raises Contested when the snapshot is no longer the newest; LakehouseError when the storage refuses, which may
        leave it open whether the commit was made: progress tells, once it can be read.
        """
        base = self.version
        properties = CommitProperties(
            custom_metadata={METADATA_KEY: state.to_json()},
            max_commit_retries=0,  # on top of this snapshot or not at all
            app_transactions=self._progress.transactions(progress),
        )
        try:
            (apply or self.kind.apply)(self.delta, batch, properties)
        except CommitFailedError as error:
            # A put that was retried by the client meets its own first try.
            if not self._landed(state.commit):
                raise Contested(f"table {self.name} at version {base}: {error}") from error
        except (DeltaError, OSError) as error:
            if not self._landed(state.commit):
                raise self._lake.explain(f"commit to table {self.name}", error) from error
        if self.version == base + 1:
            self._progress.wrote(self.delta, base, progress)
            self._tail = Tail(self.version, state)

    @property
    def _options(self) -> dict[str, str]:
        return dict(self._lake.storage_options)

    def _load(self) -> DeltaTable | None:
        try:
            return DeltaTable(self._lake.table_uri(self.name), storage_options=self._options)
        except TableNotFoundError:
            return None

    def _landed(self, commit: str) -> bool:
        """Read the log back after a failure that may have come after the commit: is our commit the newest?"""
        if not self.open():
            return False
        state = self.state()
        return state is not None and state.commit == commit

    def _refuse_to_go_back(self, before: int) -> None:
        with self._lake.explained(f"open table {self.name}"):
            now = self._load()
        if now is None:
            raise TableVanished(
                f"table {self.name} is gone, it was at version {before}. Bring it back, or move the stream's "
                "other tables away as well to build the stream again."
            )
        raise TableWentBack(
            f"table {self.name} is at version {now.version()}, it was at version {before}: an older copy was "
            "put in its place. Bring the newer one back, or move the stream's tables away to build the stream again."
        )

    def _commit_path(self, version: int) -> str:
        return f"{self.name}/_delta_log/{version:020}.json"

    def _read_tail(self) -> AnchorState | None:
        # Normally one read; more only past commits of others (optimize, vacuum, changed columns).
        for version in range(self.version, -1, -1):
            log = self._lake.get(self._commit_path(version))
            if log is None:
                raise StateMissing(
                    f"table {self.name}: no commit of pipeline {self._pipeline} from version {version + 1} on, "
                    "and older log entries are gone. Move the stream's tables away to build the stream again."
                )
            info = _commit_info(log)
            if info.get("operation") == "RESTORE":
                raise RestoredTable(
                    f"table {self.name}: RESTORE was run (version {version}): rows went back, but progress did not, so "
                    "records would be missing. Move the stream's tables away to build the stream again from Kafka."
                )
            if METADATA_KEY in info:
                return self._own(AnchorState.from_json(info[METADATA_KEY]))
        return None

    def _own(self, state: AnchorState) -> AnchorState:
        if state.pipeline != self._pipeline:
            raise OtherPipeline(
                f"table {self.name} is filled by pipeline {state.pipeline}, not by {self._pipeline}: its records would "
                f"be written a second time. Use --name {state.pipeline}, or another lake."
            )
        return state


def _commit_info(log: bytes) -> dict[str, str]:
    for line in log.splitlines():
        if line.startswith(b'{"commitInfo"'):
            info: dict[str, str] = orjson.loads(line)["commitInfo"]
            return info
    return {}

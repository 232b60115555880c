"""A Delta table to which rows are appended and from which rows are taken, in one commit.

Rows are taken by marking them in deletion vectors (merge-on-read), or by writing their files again without them
(copy-on-write): where the contract wants it so, and in tables whose protocol has no vectors.

A row's location is one int64: the number of its file (see MergeTable.files) in the high 32 bits, its position in the
file in the low ones. Numbers are of one MergeTable object only; whoever keeps locations longer keeps paths.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from deltalake import Schema
from pyroaring import BitMap

from contracts.model import Storage
from lakehouse.anchor import METADATA_KEY, AnchorState
from lakehouse.errors import CommitContested, SchemaRefused
from lakehouse.groups import Ints
from lakehouse.kind import TableKind
from lakehouse.lake import Lake
from lakehouse.lane_states import put_together
from lakehouse.lanes import TAG, Lane
from lakehouse.merge.actions import commit_info, removed
from lakehouse.merge.checkpoints import Checkpoints
from lakehouse.merge.copying import Copied, copied
from lakehouse.merge.data_files import Layout, Written, write_files
from lakehouse.merge.lane_files import claimed_by, tagged, write_by_lane
from lakehouse.merge.live import LiveFiles, News, rows_left
from lakehouse.merge.locations import POSITION_BITS
from lakehouse.merge.log import Action, Change, DataFile, DeltaLog, Guard, Snapshot
from lakehouse.merge.marking import Marking
from lakehouse.merge.protocol import vectored, verify_protocol
from lakehouse.merge.putting import put_once
from lakehouse.merge.reading import FileReader
from lakehouse.merge.shaping import creation, evolution, retyped
from lakehouse.progress import Partition, Writer
from lakehouse.shape import STATISTICS, TableShape
from lakehouse.table import EVOLVE_ATTEMPTS, Contested
from lakehouse.tail import LogTail

NOTHING_COPIED = Copied([], [])
NOWHERE = np.empty(0, np.int64), np.empty(0, np.int64)
ATTEMPTS = 100  # to put one commit on top of other lanes' ones


class MergeTable:
    """Gives one table's rows by location at one snapshot, and commits on top of that snapshot only.

    Used by one thread at a time. Another process may commit as well: then commit raises Contested, open() reads on,
    and news() says what changed.
    """

    def __init__(
        self,
        lake: Lake,
        kind: TableKind,
        shape: TableShape,
        writer: Writer,
        *,
        guard: Guard = verify_protocol,
        keys: Sequence[str] = (),
    ) -> None:
        self.kind = kind
        self.shape = shape
        self.lane = writer.lane
        self.checkpoints = Checkpoints(lake, shape.name, writer.lane)
        self.moved = NOWHERE  # where rows that the newest commit copied were, and where they are
        self.rebased = 0  # commits that were put again on top of other lanes' ones
        self._keys = tuple(keys)
        self._lake = lake
        self._writer = writer
        self._log = DeltaLog(lake, shape.name, guard)
        self._tail = LogTail(lake, shape.name, writer.pipeline)
        self._reader = FileReader(lake, shape.name)
        self._live = LiveFiles(self._reader)
        self._snapshot: Snapshot | None = None
        self._columns: tuple[str, pa.Schema] | None = None
        self._types = ""  # the log's text of the columns that rows are known to fit

    @property
    def name(self) -> str:
        """Give the table's name in the lake."""
        return self.shape.name

    @property
    def version(self) -> int:
        """Give the snapshot's version."""
        return self._open_snapshot.version

    @property
    def table_id(self) -> str:
        """Give the id that the table got when it was created."""
        return str(self._open_snapshot.metadata["id"])

    @property
    def protocol(self) -> Action:
        """Give what the table asks of readers and writers, as its log says it."""
        return self._open_snapshot.protocol

    @property
    def metadata(self) -> Action:
        """Give the table's columns, partitioning and properties, as its log says them."""
        return self._open_snapshot.metadata

    @property
    def columns(self) -> pa.Schema:
        """Give the table's columns at the snapshot."""
        text = self._open_snapshot.metadata["schemaString"]
        if self._columns is None or self._columns[0] is not text:
            self._columns = text, pa.schema(Schema.from_json(text).to_arrow())
        return self._columns[1]

    @property
    def copies(self) -> bool:
        """Say whether commits write files again (copy-on-write) rather than vectors."""
        wanted = self.shape.storage is Storage.COPY_ON_WRITE
        return wanted or not vectored(self._open_snapshot.protocol)

    @property
    def fallback(self) -> str | None:
        """Say why the table is not written as the contract wants; None when it is."""
        if self.shape.storage is Storage.COPY_ON_WRITE or vectored(self._open_snapshot.protocol):
            return None
        return (
            f"table {self.name} has no deletion vectors, the contract wants merge-on-read: it is written copy-on-write "
            "meanwhile, and commits cost more. Give it vectors with `tidegate migrate`, or set `storage: copy-on-write`"
        )

    @property
    def layout(self) -> Layout:
        """Give how new files are written."""
        said = self._open_snapshot.configuration.get(STATISTICS) or ""
        return Layout(self.columns, tuple(self._open_snapshot.partition_by), tuple(filter(None, said.split(","))))

    def open(self) -> bool:
        """Read the newest snapshot; False when there is no such table.

        Raises TableVanished or TableWentBack when this process saw the table, or a higher version of it, before,
        SchemaRefused when a column has another type since then, and TableRefused when the table is not for this writer.
        """
        if self._snapshot is None:
            self._snapshot = self._log.load()
            if self._snapshot is None:
                return False
            self._begin(self._snapshot)
            self._types = self._snapshot.metadata["schemaString"]
            return True
        for change in self._log.advance(self._snapshot):
            self._live.follow(self._snapshot, change)
        if not self._tail.holds(self._snapshot.version):
            self._reload(self._snapshot.version)
        self._verify_types()
        return True

    def create(self) -> None:
        """Create the table, empty; another process may do it at the same time."""
        self._put(0, creation(self.shape))
        self.open()

    def verify(self) -> list[pa.Field]:
        """Give the columns that the contract gained; changes nothing.

        Raises KeyPinChanged or SchemaRefused when the table cannot become what the contract wants.
        """
        snapshot = self._open_snapshot
        current = Schema.from_json(snapshot.metadata["schemaString"])
        added = self.shape.added(self.name, current, snapshot.partition_by)
        self.shape.verify_pins(snapshot.configuration, {column.name for column in added})
        if self.shape.storage is Storage.COPY_ON_WRITE and vectored(snapshot.protocol):
            raise SchemaRefused(
                f"table {self.name}: it has deletion vectors, the contract now wants copy-on-write. Rewrite it with "
                "`tidegate migrate`, or set `storage: merge-on-read`."
            )
        return added

    def evolve(self) -> None:
        """Give the table the columns and properties that the contract gained, in a commit of its own.

        Raises KeyPinChanged or SchemaRefused when the table cannot become what the contract wants.
        """
        for _ in range(EVOLVE_ATTEMPTS):
            actions = evolution(self._open_snapshot, self.shape, self.verify())
            if not actions:
                return
            try:
                self._commit([commit_info("CHANGE COLUMN", {}, self.version), *actions])
                return
            except Contested:
                self.open()
        raise CommitContested(f"table {self.name}: others won every attempt to change its columns. It will be retried.")

    def progress(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Give the last applied offset of each partition that has one, at the snapshot."""
        return self.lane_progress(partitions, self.lane)

    def lane_progress(self, partitions: Iterable[Partition], lane: Lane) -> dict[Partition, int]:
        """Give the last applied offset of each partition that has one in a lane, at the snapshot."""
        txns, writer = self._open_snapshot.txns, self._writer.in_lane(lane)
        asked = ((partition, writer.app_id(partition)) for partition in partitions)
        return {partition: txns[app] for partition, app in asked if app in txns}

    def state(self) -> AnchorState | None:
        """Give what the newest commit of our pipeline says, at the snapshot; None in a table never filled.

        Raises RestoredTable when RESTORE was run since, OtherPipeline when another pipeline fills the table, and
        StateMissing when the log was cut off before such a commit.
        """
        return self._tail.state(self.version)

    def committed_ms(self) -> int | None:
        """Give when the snapshot's version was committed (ms); None when the log no longer says it."""
        return self._tail.committed_ms(self.version)

    def files(self) -> Mapping[int, DataFile]:
        """Give the live files by number; the mapping follows the snapshot. A path keeps its number."""
        return self._live.files

    @property
    def next_number(self) -> int:
        """Give a number above that of every file there ever was."""
        return self._live.next_number

    def renumber(self, numbers: Mapping[str, int], next_number: int) -> None:
        """Give files (by path) the numbers that kept locations name. No other location may be in use, and no news."""
        self._live.renumber(numbers, next_number)

    def row_count(self, number: int) -> int:
        """Give the physical row count of a live file, deleted rows included."""
        return self._live.row_count(number)

    def dead(self, number: int) -> BitMap | None:
        """Give the positions of a live file's deleted rows, not to be changed; None when there are none."""
        return self._live.dead(number)

    def rows(self, locations: Ints, columns: Sequence[str] | None = None) -> pa.Table:
        """Give the stored rows at locations in live files, in their order, deleted or not.

        Raises KeyError for a file that is not live.
        """
        return self._live.rows(locations, self._schema(columns))

    def living(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Give columns of a live file's rows that are not deleted, in their order."""
        return rows_left(self.scan(number, columns), self.dead(number))

    def scan(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Give columns of all rows of a live file in their order, deleted ones included."""
        return self._live.whole(number, self._schema(columns))

    def news(self) -> News:
        """Give what others did since the last call, or since the first open()."""
        return self._live.news()

    def commit(
        self,
        append: pa.Table,
        remove: Ints,
        progress: Mapping[Partition, int],
        state: AnchorState | None,
        *,
        operation: str = "MERGE",
    ) -> Ints:
        """Append rows and delete those at locations, with the new progress and state, in one commit.

        Without a state the table still counts as never filled, or as it stood before.

        Gives the locations of the appended rows in their order. Copy-on-write, the rows beside deleted ones are in new
        files afterwards, as `moved` says. A location that is deleted already, or whose file is no longer live, changes
        nothing; no rows at all still make a commit.
        Raises Contested when the snapshot is no longer the newest; what other lanes committed meanwhile is no reason
        for it: the commit is put again on top of theirs, nothing is read or written again but a vector that they
        changed, unless they rewrote a file that the commit takes rows from. LakehouseError when the storage refuses,
        which may leave it open whether the commit was made: progress tells, once it can be read. Files that were
        written for a commit that was not made stay for vacuum.
        """
        layout, hit = self.layout, self._hit(remove)
        rows, marking = layout.conformed(append), Marking(self._lake, self.name, self._live, remove)
        with ThreadPoolExecutor(1) as beside:  # the vectors are made and put meanwhile
            writing = beside.submit(write_files, self._lake, self.name, rows, layout)
            copy = copied(self._lake, self.name, self._live, remove, layout) if self.copies else NOTHING_COPIED
            deleting, vectors = (copy.removes, {}) if self.copies else marking.marked()
        written = tagged(writing.result(), self.lane)
        if all(self._live.files[number].lane == self.lane for number in hit):
            tagged([file for file, _ in copy.files], self.lane)
        parameters = {"appended": str(len(append)), "removed": str(len(remove))}
        txns = [{"txn": {"appId": self._writer.app_id(p), "version": offset}} for p, offset in progress.items()]
        adds = [{"add": file.add} for file in (*written, *(file for file, _ in copy.files))]
        for attempt in range(ATTEMPTS):
            told = state if state is None or state.lane is None else put_together(state, self.state())
            info = commit_info(operation, parameters, self.version, self._said(told))
            try:
                self._commit([info, *txns, *deleting, *adds], vectors)
                break
            except Contested:
                self._rebase(hit, attempt, beside=True, exact=self.copies)
                if not self.copies:
                    deleting, vectors = marking.marked()
        self.moved = self._moved(copy)
        if told is not None:
            self._tail.wrote(self.version, told)
        self.checkpoints.committed(self.version)
        self._keep(written, rows)
        return self._locations(written, len(append))

    def commit_ids(self, ids: Mapping[str, int], state: AnchorState) -> None:
        """Commit progress under these application ids, with a state, and nothing else; raises as commit does."""
        info = commit_info("WRITE", {}, self.version, {METADATA_KEY: state.to_json()})
        self._commit([info, *({"txn": {"appId": app, "version": offset}} for app, offset in ids.items())])
        self._tail.wrote(self.version, state)

    def rewrite(self, numbers: Sequence[int], *, operation: str = "OPTIMIZE") -> tuple[Ints, Ints]:
        """Write the rows of live files that are not deleted into new files, in one commit that changes no data.

        Gives the rows' old locations and their new ones. Raises as commit does.
        """
        old = np.concatenate([np.empty(0, np.int64), *(self._live.living(number) for number in numbers)])
        parts = [rows_left(self._live.whole(number, self.columns), self.dead(number)) for number in numbers]
        rows = pa.concat_tables([self.columns.empty_table(), *parts])
        old, rows, written = self._rewritten(old, rows, numbers)
        # deltalake (1.6.6) does not see that its own compaction meets one of the same files, and brings all rows back;
        # that somebody has said the table's metadata again it does see.
        self.exchange(numbers, written, [{"metaData": self.metadata}], operation=operation)
        self._keep(written, rows)
        return old, self._locations(written, len(old))

    def exchange(
        self, numbers: Sequence[int], written: Sequence[Written], also: Sequence[Action], *, operation: str
    ) -> None:
        """Take live files out of the table and written ones in, beside other actions, in a commit that changes no data.

        The newest state is repeated in the commit, so that one read of the log's tail still finds it. Raises as commit
        does.
        """
        hit = {number: self._live.files[number].vector_id for number in numbers}
        removes = [removed(self._live.files[number], data_change=False) for number in numbers]
        for attempt in range(ATTEMPTS):
            state = self.state()
            info = commit_info(operation, {"files": str(len(numbers))}, self.version, self._said(state))
            try:
                self._commit([info, *also, *removes, *({"add": file.add} for file in written)])
                break
            except Contested:
                self._rebase(hit, attempt, beside=False, exact=True)
        if state is not None:
            self._tail.wrote(self.version, state)
        self.checkpoints.committed(self.version)

    def replace_all(
        self, written: Sequence[Written], also: Sequence[Action], state: AnchorState, *, operation: str
    ) -> None:
        """Take all live files out of the table and written ones in, with a state, beside other actions.

        On top of this snapshot or not at all: raises as commit does.
        """
        removes = [removed(file) for file in self._live.files.values()]
        info = commit_info(operation, {"files": str(len(removes))}, self.version, {METADATA_KEY: state.to_json()})
        self._commit([info, *also, *removes, *({"add": file.add} for file in written)])
        self._tail.wrote(self.version, state)
        self.checkpoints.committed(self.version)

    def transaction(self, app: str) -> int | None:
        """Give the number that stands under an application id, at the snapshot; None for none."""
        return self._open_snapshot.txns.get(app)

    def keeps(self, file: DataFile) -> bool:
        """Say whether a file's upkeep is this lane's: it wrote it, or the file is one of those that no lane claims."""
        if self.lane.alone or not self._keys:
            return self.lane.first
        return claimed_by(file, self.lane)

    @property
    def _open_snapshot(self) -> Snapshot:
        assert self._snapshot is not None, f"table {self.name} is not open"
        return self._snapshot

    def _said(self, state: AnchorState | None) -> dict[str, str]:
        """Give what a commit of ours says of itself."""
        lane = {} if self.lane.alone else {TAG: str(self.lane)}
        return lane if state is None else {METADATA_KEY: state.to_json(), **lane}

    def _hit(self, remove: Ints) -> dict[int, str | None]:
        """Give the live files that locations are in, and which vectors they have."""
        numbers = [] if self.lane.alone else np.unique(remove >> POSITION_BITS).tolist()
        return {number: self._live.files[number].vector_id for number in numbers if number in self._live.files}

    def _rebase(self, hit: Mapping[int, str | None], attempt: int, *, beside: bool, exact: bool) -> None:
        """Go forward to the newest version, so that a commit that lost the race can be put again as it is.

        hit: the files it takes rows from. beside: only commits of other lanes may have come between. exact: no other
        row of the files may be deleted since. Raises Contested where the commit must be worked out again.
        """
        before = self.version
        clear = not self.lane.alone and attempt + 1 < ATTEMPTS
        for change in self._log.advance(self._open_snapshot) if clear else ():
            self._live.follow(self._open_snapshot, change)
            clear &= not change.reshaped and (not beside or self._is_beside(change.lane))
        files = self._live.files
        clear &= all(n in files and (not exact or files[n].vector_id == vector) for n, vector in hit.items())
        if not clear or self.version == before:
            raise Contested(f"table {self.name}: others committed after version {before}")
        self.rebased += 1

    def _is_beside(self, lane: str | None) -> bool:
        """Say whether a commit is one of another of the stream's present lanes."""
        other = Lane.parse(lane) if lane else None
        return other is not None and other.of == self.lane.of and other != self.lane

    def _keep(self, written: Sequence[Written], rows: pa.Table) -> None:
        """Remember the rows of new files, where single rows of the table are asked for."""
        for file in written if self._reader.gives_rows else ():
            self._reader.keep(file.path, rows if len(written) == 1 else rows.take(pa.array(file.taken)))

    def _rewritten(self, old: Ints, rows: pa.Table, numbers: Sequence[int]) -> tuple[Ints, pa.Table, list[Written]]:
        """Write rows again, each lane's in files of its own; gives them and their locations as they were written."""
        if self.lane.alone or not self._keys or all(self._live.files[n].lane == self.lane for n in numbers):
            written = write_files(self._lake, self.name, rows, self.layout, data_change=False)
            return old, rows, tagged(written, self.lane) if self._keys else written
        order, written = write_by_lane(self._lake, self.name, rows, self.layout, self._keys, self.lane.of)
        return old[order], rows.take(pa.array(order)), written

    def _schema(self, columns: Sequence[str] | None) -> pa.Schema:
        return self.columns if columns is None else pa.schema([self.columns.field(name) for name in columns])

    def _verify_types(self) -> None:
        """Raise SchemaRefused when a column has another type than when this process began: its rows would not fit."""
        text = self._open_snapshot.metadata["schemaString"]
        if text is self._types:
            return
        if changed := retyped(self._types, text):
            raise SchemaRefused(
                f"table {self.name}: columns {', '.join(changed)} have another type since version {self.version} or "
                "before, while this job ran. Start it again with the contract that the table was migrated to."
            )
        self._types = text

    def _begin(self, snapshot: Snapshot) -> None:
        self._live.begin(snapshot)
        self.checkpoints.begin(snapshot.checkpoint)

    def _reload(self, before: int) -> None:
        """Read the log afresh: our version's entry is gone, because the log was cleaned up or the table replaced."""
        known = self._open_snapshot
        now = self._log.load()
        if now is None or now.version < before or now.metadata["id"] != known.metadata["id"]:
            raise self._tail.gone_back(before, None if now is None else now.version)
        shared = known.files.keys() & now.files.keys()
        changed = {path for path in shared if known.files[path].vector_id != now.files[path].vector_id}
        gone, new = known.files.keys() - now.files.keys(), now.files.keys() - known.files.keys()
        self._snapshot = now
        told = Change(now.version, frozenset(new), frozenset(gone), frozenset(changed), frozenset(now.files))
        self._live.follow(now, told)
        self._begin(now)

    def _commit(self, actions: list[Action], vectors: Mapping[int, BitMap] | None = None) -> None:
        """Put the next version and go forward to it; raises Contested, or what the storage says."""
        version = self.version + 1
        if not self._put(version, actions):
            raise Contested(f"table {self.name}: version {version} was committed by another writer")
        self._live.follow(self._open_snapshot, self._open_snapshot.apply(version, actions), own=True)
        self._types = self._open_snapshot.metadata["schemaString"]
        for number, rows in (vectors or {}).items():
            self._live.keep(number, rows)
        if self._open_snapshot.unverified:
            self._log.verify(self._open_snapshot)

    def _put(self, version: int, actions: list[Action]) -> bool:
        return put_once(self._lake, self._log, version, actions)

    def _locations(self, written: Sequence[Written], count: int) -> Ints:
        made = np.empty(count, np.int64)
        for file in written:
            made[file.taken] = self._live.locations(file.path, len(file.taken))
        return made

    def _moved(self, copy: Copied) -> tuple[Ints, Ints]:
        """Give where the rows that a commit copied were, and where they are."""
        none = np.empty(0, np.int64)
        new = [self._live.locations(file.path, len(old)) for file, old in copy.files]
        return np.concatenate([none, *(old for _, old in copy.files)]), np.concatenate([none, *new])

"""Maintenance of a stream's tables from outside of its writer, at any time, by any number of processes.

What it deletes nobody needs any more, whoever writes or reads meanwhile. Files it rewrites only where no writer is:
against one it would lose every race, so the writer is asked to do it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import TypeVar

import obstore
import pyarrow as pa
from deltalake import DeltaTable

from contracts.model import Contract
from lakehouse.drift import TABLE as DRIFT
from lakehouse.errors import ClockDiffers, LakehouseError
from lakehouse.kind import TableKind
from lakehouse.kinds import tables_kept
from lakehouse.lake import Lake
from lakehouse.lease import leased
from lakehouse.maintained import Maintained, Record, TableRecord
from lakehouse.merge.checkpoints import make_checkpoint
from lakehouse.merge.compaction import SMALL_BYTES, SMALL_COUNT, compact, slices
from lakehouse.merge.index_snapshot import Leftovers, remove_leftovers
from lakehouse.merge.log import DeltaLog, Snapshot
from lakehouse.merge.log_cleanup import LogCleaned, clean_log
from lakehouse.merge.merge_table import MergeTable
from lakehouse.merge.protocol import verify_rewritable
from lakehouse.merge.vacuum import Vacuumed, vacuum
from lakehouse.parking import Parking
from lakehouse.progress import Writer
from lakehouse.segments import Anchors, Collected, collect_garbage
from lakehouse.shape import TableShape
from lakehouse.standing import standing_of
from lakehouse.table import Contested
from lakehouse.upkeep import FOLDER, Requests

RETENTION = timedelta(days=7)
# Above the longest commit: a job's checkpoint, which waits for its commits, may take half an hour (flink-conf.yaml).
SHORTEST_RETENTION = timedelta(hours=1)
QUIET = timedelta(minutes=1)  # since the newest commit, from which on no writer is believed to be at work
QUIET_UNKNOWN = timedelta(hours=1)  # where nobody can say whether the job runs
CHECKPOINT_AFTER = 10  # commits
CLOCKS_DIFFER = timedelta(minutes=5)
EVERYTHING = float("inf")  # seconds of a compaction
REWRITES = "OPTIMIZE"
T = TypeVar("T")


class Job(StrEnum):
    """What the cluster says of a pipeline's job."""

    RUNS = "runs"
    ENDED = "ended"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Orders:
    """What maintenance is to do."""

    retention: timedelta = RETENTION
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a retention that would delete files of a commit under way."""
        if self.retention < SHORTEST_RETENTION:
            raise ValueError(
                f"a retention of {self.retention} is too short: files of commits that are under way, and of versions "
                f"that somebody is reading, would be deleted. Give at least {SHORTEST_RETENTION}."
            )


@dataclass
class TableDone:
    """What was done to one table."""

    table: str
    compacted: int = 0  # files rewritten
    checkpoint: bool = False
    log: LogCleaned = field(default_factory=LogCleaned)
    vacuumed: Vacuumed = field(default_factory=lambda: Vacuumed(0, 0, 0))
    note: str = ""  # what was left to others
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StreamDone:
    """What was done to a stream's tables."""

    stream: str
    tables: tuple[TableDone, ...]
    asked: bool = False  # the writer, to compact

    @property
    def failed(self) -> bool:
        """Whether anything could not be done."""
        return any(table.failures for table in self.tables)


@dataclass(frozen=True)
class LakeDone:
    """What was done to what the streams of a lake share."""

    drift: TableDone | None  # None where nothing ever drifted
    segments: Collected
    indexes: Leftovers
    failures: tuple[str, ...]


def maintain_stream(lake: Lake, contract: Contract, pipeline: str, orders: Orders, job: Job) -> StreamDone:
    """Do all maintenance of one stream's tables, of every kind that is there, and record it.

    What fails for one table, and what others win, is in what it gives. Raises LakehouseError when the store does not
    say which tables there are, or does not take the record.
    """
    stream = contract.stream
    tables = {kind.table_name(stream): _files(lake, kind, stream, pipeline) for kind in tables_kept(contract)}
    done = {name: TableDone(name) for name in tables}
    there = {name: table for name, table in tables.items() if _tried(done[name], table.open, False)}
    written = [_tried(done[name], partial(_written_ms, lake, table), 0) for name, table in there.items()]
    busy = _busy(lake, stream, pipeline, job, max(written, default=0))
    asked = False
    for name, table in there.items():
        worn = _tried(done[name], partial(_worn, table), False)
        if worn and busy:
            done[name].note = f"left to its writer: {busy}"
            asked = True
        elif worn:
            _tried(done[name], partial(_compact, table, orders, done[name]), None)
        _clean(lake, done[name], orders, filled=True)
    if asked and not orders.dry_run:
        Requests(lake, pipeline).ask(stream)
    made = StreamDone(stream, tuple(done[n] for n in tables if n in there or done[n].failures), asked)
    if made.tables and not orders.dry_run:
        _record(lake, pipeline, stream, orders, made.tables)
    return made


def maintain_lake(lake: Lake, contracts: Sequence[Contract], pipeline: str, orders: Orders) -> LakeDone:
    """Do the maintenance of the table of drift, of segments and of index snapshots, and record it.

    Raises LakehouseError when the store does not take the record.
    """
    drift, failures = TableDone(DRIFT), list[str]()
    there = _tried(drift, DeltaLog(lake, DRIFT, lambda *_: None).load, None) is not None
    if there:
        _tried(drift, partial(_compact_drift, lake, orders, drift), None)
        _clean(lake, drift, orders, filled=False)
    segments = _told(failures, lambda: _collect(lake, contracts, pipeline, orders, failures), Collected(0, 0, 0))
    before = datetime.now(UTC) - SHORTEST_RETENTION
    indexes = _told(failures, lambda: remove_leftovers(lake, before, dry_run=orders.dry_run), Leftovers(0, 0))
    told = drift if there or drift.failures else None
    if told and not orders.dry_run:
        _record(lake, pipeline, "", orders, [told])
    return LakeDone(told, segments, indexes, tuple(failures))


def verify_clock(lake: Lake, pipeline: str) -> None:
    """Raise ClockDiffers when this machine's clock is not the store's: ages of files would be wrong."""
    path = f"{FOLDER}/{pipeline}/clock"
    lake.put(path, b"")
    with lake.explained(f"look for {path}"):
        there: datetime = obstore.head(lake.objects, path)["last_modified"]
    here = datetime.now(UTC)
    if abs(here - there) > CLOCKS_DIFFER:
        raise ClockDiffers(
            f"this machine's clock says {here:%F %T}Z, the store of {lake.uri} wrote an object at {there:%F %T}Z: what "
            "is old cannot be told. Set the clock right."
        )


def _files(lake: Lake, kind: TableKind, stream: str, pipeline: str) -> MergeTable:
    """Give the files of a table whose columns nobody asks for."""
    shape = TableShape(kind.table_name(stream), pa.schema([]), (), (), {})
    return MergeTable(lake, kind, shape, Writer(pipeline), guard=verify_rewritable)


def _worn(table: MergeTable) -> bool:
    return any(slices(table))


def _busy(lake: Lake, stream: str, pipeline: str, job: Job, written_ms: int) -> str:
    """Say why a writer of tables that were last written to at a time is believed to be at work, if one is."""
    parked = Parking(lake, pipeline).read(stream) is not None
    if job is Job.RUNS and not parked:
        return "the job runs"
    quiet = QUIET_UNKNOWN if job is Job.UNKNOWN and not parked else QUIET
    age = timedelta(milliseconds=int(time.time() * 1000) - written_ms)
    if age >= quiet:
        return ""
    known = "nobody says whether the job runs, and " if job is Job.UNKNOWN else ""
    return f"{known}the newest commit is only {max(int(age.total_seconds()), 0)} s old"


def _written_ms(lake: Lake, table: MergeTable) -> int:
    """Give when the newest commit was made that did not only rewrite files (ms); 0 when the log does not say."""
    log = DeltaLog(lake, table.name)
    for version in range(table.version, -1, -1):
        infos = [action["commitInfo"] for action in log.read(version) or () if "commitInfo" in action]
        if not infos or infos[0].get("operation") != REWRITES:
            return int(infos[0].get("timestamp", 0)) if infos else 0
    return 0


def _compact(table: MergeTable, orders: Orders, done: TableDone) -> None:
    if orders.dry_run:
        done.compacted = sum(map(len, slices(table)))
    else:
        done.compacted = compact(table, EVERYTHING).files


def _compact_drift(lake: Lake, orders: Orders, done: TableDone) -> None:
    """Merge the files of the table of drift, which many write and nobody for long.

    By delta-rs, which does not see that another compaction of its own took the same files: one process at a time.
    """
    alone = nullcontext() if orders.dry_run else leased(lake, f"{FOLDER}/drift.json")
    with lake.explained(f"compact table {DRIFT}"), alone as holder:
        table = DeltaTable(lake.table_uri(DRIFT), storage_options=dict(lake.storage_options))
        small = sum(size < SMALL_BYTES for size in pa.table(table.get_add_actions())["size_bytes"].to_pylist())
        if holder is None and small >= SMALL_COUNT:
            done.compacted = small if orders.dry_run else int(table.optimize.compact()["numFilesRemoved"])


def _clean(lake: Lake, done: TableDone, orders: Orders, *, filled: bool) -> None:
    """Make a checkpoint where the newest is old, and delete log entries and files that no retained version needs."""
    name, dry = done.table, orders.dry_run

    def checkpoint() -> None:
        snapshot = DeltaLog(lake, name, lambda *_: None).load()
        if snapshot and _outdated(snapshot):
            done.checkpoint = True
            if not dry:
                make_checkpoint(lake, name)

    def clean() -> None:
        done.log = clean_log(lake, name, orders.retention, filled=filled, dry_run=dry)

    def delete() -> None:
        done.vacuumed = vacuum(lake, name, orders.retention, dry_run=dry)

    for verb in (checkpoint, clean, delete):
        _tried(done, verb, None)


def _outdated(snapshot: Snapshot) -> bool:
    return snapshot.version - snapshot.checkpoint >= CHECKPOINT_AFTER


def _tried(done: TableDone, verb: Callable[[], T], otherwise: T) -> T:
    """Do something to a table whose failure must not keep others from their maintenance."""

    def unless_contested() -> T:
        try:
            return verb()
        except Contested:
            done.note = "left to its writer: it committed meanwhile"
            return otherwise

    return _told(done.failures, unless_contested, otherwise)


def _told(failures: list[str], verb: Callable[[], T], otherwise: T) -> T:
    try:
        return verb()
    except LakehouseError as error:
        failures.append(str(error))
    except Exception as error:  # noqa: BLE001 (a damaged log, for one, may raise anything)
        failures.append(f"{type(error).__name__}: {error}")
    return otherwise


def _collect(
    lake: Lake, contracts: Iterable[Contract], pipeline: str, orders: Orders, failures: list[str]
) -> Collected:
    """Delete the segments that no stream needs; those of a stream whose progress cannot be read stay."""
    anchors: dict[str, Mapping[tuple[str, int], int]] = {}
    for contract in contracts:
        read = partial(standing_of, lake, contract, pipeline)
        anchors[contract.stream] = _told(failures, lambda: read().progress, {})  # noqa: B023
    known: Anchors = anchors
    return collect_garbage(lake, known, SHORTEST_RETENTION, dry_run=orders.dry_run)


def _record(lake: Lake, pipeline: str, stream: str, orders: Orders, tables: Iterable[TableDone]) -> None:
    maintained, now = Maintained(lake, pipeline), int(time.time() * 1000)
    before = maintained.read(stream)
    known = before.tables if before else {}
    made = {}
    for done in tables:
        last = known.get(done.table)
        compacted_ms = now if done.compacted else last.compacted_ms if last else None
        files, size = done.vacuumed.data_files + done.vacuumed.vector_files, done.vacuumed.bytes + done.log.bytes
        failure = "; ".join(done.failures)
        made[done.table] = TableRecord(compacted_ms, done.compacted, files, done.log.entries, size, done.note, failure)
    maintained.write(Record(stream, now, int(orders.retention.total_seconds()), made))

"""The Delta log of one table: what it says at one version, read forward commit by commit, and the next commit put."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import obstore
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.exceptions import AlreadyExistsError

from lakehouse.errors import LakeUnavailable, TableRefused
from lakehouse.lake import Lake
from lakehouse.lanes import TAG, Lane
from lakehouse.merge.protocol import verify_protocol
from lakehouse.merge.vectors import Descriptor

Action = dict[str, Any]
# Raises TableRefused when a table of that protocol and metadata is not for its reader: table name, protocol, metadata.
Guard = Callable[[str, Action, Action], None]
FULL = "tidegate.full"  # a tag of files that are as large as we make them, however few bytes that is
LANE = re.compile(r"\d{1,2}of\d{1,2}")
_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(?:\.(\d{10})\.(\d{10}))?\.parquet")
_DERIVED = ("stats_parsed", "partitionValues_parsed")  # columns of checkpoints that no action has


@dataclass(frozen=True)
class DataFile:
    """One live file of a table: its add action, and what is often asked of it."""

    path: str  # below the table's folder, as the storage knows it
    add: Action
    vector: Descriptor | None

    @property
    def size(self) -> int:
        """Give the file's bytes."""
        return int(self.add["size"])

    @property
    def dead(self) -> int:
        """Give how many of its rows are deleted."""
        return self.vector.cardinality if self.vector else 0

    @property
    def partition_values(self) -> Mapping[str, str | None]:
        """Give the partition column's values as the log writes them."""
        return self.add.get("partitionValues") or {}

    @property
    def lane(self) -> Lane | None:
        """Give the lane that the file says all its rows are of; None where it says none."""
        said = (self.add.get("tags") or {}).get(TAG)
        return Lane.parse(said) if said and LANE.fullmatch(said) else None

    @property
    def full(self) -> bool:
        """Say whether the file's rows take so much memory that its writer would not put more into one file."""
        return FULL in (self.add.get("tags") or {})

    @cached_property
    def rows(self) -> int | None:
        """Give the physical row count, deleted rows included; None when the log does not say it."""
        stats = self.add.get("stats")
        count = orjson.loads(stats).get("numRecords") if stats else None
        return None if count is None else int(count)

    @property
    def vector_id(self) -> str | None:
        """Give the id of the file's deletion vector."""
        return self.vector.id if self.vector else None


@dataclass(frozen=True)
class Change:
    """What one commit did to the live files, by path."""

    version: int
    added: frozenset[str]
    gone: frozenset[str]
    changed: frozenset[str]  # another deletion vector
    touched: frozenset[str]  # every added path, also where only other fields of the file changed
    lane: str | None = None  # that made it
    reshaped: bool = False  # protocol or columns changed


@dataclass
class Snapshot:
    """What the log says at one version; goes forward in place, so that a commit costs what it changed."""

    version: int
    protocol: Action = field(default_factory=dict)
    metadata: Action = field(default_factory=dict)
    files: dict[str, DataFile] = field(default_factory=dict)  # by path
    txns: dict[str, int] = field(default_factory=dict)  # by application id
    checkpoint: int = -1  # the newest one seen
    optimized_ms: int | None = None  # when files were last rewritten, as far as the log since the checkpoint says
    unverified: bool = True  # protocol or columns changed

    @property
    def configuration(self) -> Mapping[str, str]:
        """Give the table properties."""
        return self.metadata.get("configuration") or {}

    @property
    def partition_by(self) -> list[str]:
        """Give the partition columns."""
        return list(self.metadata.get("partitionColumns") or ())

    def apply(self, version: int, actions: Iterable[Action]) -> Change:
        """Go forward by one commit; whole or, when it raises, not at all."""
        by_kind: dict[str, list[Action]] = {}
        for action in actions:
            for kind, body in action.items():
                by_kind.setdefault(kind, []).append(body)
        added = {file.path: file for file in map(data_file, by_kind.get("add", ()))}
        gone = {path for path, vector in map(_identity, by_kind.get("remove", ())) if self._holds(path, vector)}
        for path, file in added.items():
            if path not in gone and not self._replaces(file):
                raise TableRefused(f"version {version} adds {path} with a second deletion vector: the log is damaged")
        before = {path for path in added if path in self.files}
        changed = frozenset(p for p in before if self.files[p].vector_id != added[p].vector_id)
        protocol = (by_kind.get("protocol") or [self.protocol])[-1]
        metadata = (by_kind.get("metaData") or [self.metadata])[-1]
        change = Change(
            version,
            frozenset(added.keys() - before),
            frozenset(gone - added.keys()),
            changed,
            frozenset(added),
            next((info[TAG] for info in by_kind.get("commitInfo", ()) if TAG in info), None),
            protocol != self.protocol or metadata != self.metadata,
        )
        for path in gone:
            del self.files[path]
        self.files |= added
        self.txns |= {txn["appId"]: int(txn["version"]) for txn in by_kind.get("txn", ())}
        self.protocol, self.metadata = protocol, metadata
        self.unverified |= change.reshaped
        for info in by_kind.get("commitInfo", ()):
            if info.get("operation") == "OPTIMIZE":
                self.optimized_ms = info.get("timestamp")
        self.version = version
        return change

    def _holds(self, path: str, vector: str | None) -> bool:
        return path in self.files and self.files[path].vector_id == vector

    def _replaces(self, file: DataFile) -> bool:
        """Whether a file is new, or the same logical file once more (with other statistics)."""
        return file.path not in self.files or self.files[file.path].vector_id == file.vector_id


class DeltaLog:
    """Reads and writes one table's log through the lake's object store."""

    def __init__(self, lake: Lake, table: str, guard: Guard = verify_protocol) -> None:
        self.table = table
        self._lake = lake
        self._guard = guard

    def commit_path(self, version: int) -> str:
        """Give the path of a commit in the lake."""
        return f"{self.table}/_delta_log/{version:020}.json"

    def load(self) -> Snapshot | None:
        """Read the newest version; None when there is no log. Raises TableRefused for a table not for this writer."""
        hint = self._hint()
        found = self._listed(hint)
        checkpoints = complete_checkpoints(found)
        if hint and hint not in checkpoints:  # the hint may be stale
            found = self._listed(0)
            checkpoints = complete_checkpoints(found)
        commits = {int(match[1]) for name in found if (match := _COMMIT.fullmatch(name))}
        if not commits and not checkpoints:
            return None
        newest = max(checkpoints, default=-1)
        snapshot = Snapshot(newest, checkpoint=newest)
        if checkpoints:
            self._read_checkpoint(snapshot, checkpoints[newest])
        elif 0 not in commits:
            raise TableRefused(
                f"table {self.table}: its log begins at version {min(commits)} and holds no checkpoint of a form that "
                "this writer reads. Let its writer make a classic checkpoint, or move the stream's tables away."
            )
        for _ in self.advance(snapshot):
            pass
        return snapshot

    def advance(self, snapshot: Snapshot) -> Iterator[Change]:
        """Bring a snapshot to the newest version; gives what each commit in between did, once it is applied.

        Raises TableRefused at the end when the table is not, or no longer, for this writer.
        """
        while (actions := self.read(snapshot.version + 1)) is not None:
            yield snapshot.apply(snapshot.version + 1, actions)
        if snapshot.unverified:
            self.verify(snapshot)

    def read(self, version: int) -> list[Action] | None:
        """Give the actions of one commit; None when there is none."""
        data = self._lake.get(self.commit_path(version))
        return None if data is None else [orjson.loads(line) for line in data.splitlines() if line.strip()]

    def verify(self, snapshot: Snapshot) -> None:
        """Raise TableRefused when the table is not for this writer."""
        if not snapshot.protocol or not snapshot.metadata:
            raise TableRefused(f"table {self.table}: its log says no protocol or no columns: it is damaged")
        self._guard(self.table, snapshot.protocol, snapshot.metadata)
        snapshot.unverified = False

    def tombstones(self, snapshot: Snapshot) -> list[Action]:
        """Give the remove actions that a snapshot's checkpoint keeps."""
        parts = complete_checkpoints(self._listed(max(snapshot.checkpoint, 0))).get(snapshot.checkpoint, [])
        return [action["remove"] for name in parts for action in self.checkpoint_rows(name, ("remove",))]

    def put_commit(self, version: int, actions: Iterable[Action]) -> bool:
        """Put a commit if that version does not exist yet; False when it does.

        Raises what the storage raises, and then the commit may have been made: read it back.
        """
        data = b"\n".join(map(orjson.dumps, actions)) + b"\n"
        try:
            obstore.put(self._lake.objects, self.commit_path(version), data, mode="create")
        except (AlreadyExistsError, FileExistsError):
            return False
        return True

    def _hint(self) -> int:
        """Give the version of the newest checkpoint as `_last_checkpoint` says; 0 when it says nothing."""
        data = self._lake.get(f"{self.table}/_delta_log/_last_checkpoint")
        try:
            return int(orjson.loads(data)["version"]) if data else 0
        except (ValueError, KeyError, TypeError):
            return 0

    def _listed(self, after: int) -> list[str]:
        """Give the names in the log folder from a version on."""
        folder = f"{self.table}/_delta_log/"
        with self._lake.explained(f"list the log of table {self.table}"):
            entries = obstore.list(self._lake.objects, folder, offset=f"{folder}{after:020}").collect()
        return [entry["path"].rpartition("/")[2] for entry in entries]

    def _read_checkpoint(self, snapshot: Snapshot, names: list[str]) -> None:
        actions: list[Action] = []
        for name in names:
            actions += self.checkpoint_rows(name, ("add", "txn", "protocol", "metaData"))
        snapshot.apply(snapshot.version, actions)

    def checkpoint_rows(self, name: str, kinds: tuple[str, ...]) -> list[Action]:
        """Give the actions of some kinds that one checkpoint file holds."""
        data = self._lake.get(f"{self.table}/_delta_log/{name}")
        if data is None:
            raise LakeUnavailable(
                f"table {self.table}: its checkpoint {name} vanished while it was read. It is retried."
            )
        parquet = pq.ParquetFile(pa.BufferReader(data))
        present = [kind for kind in kinds if kind in parquet.schema_arrow.names]
        rows = parquet.read(columns=present)
        return [
            {kind: _plain(body)} for kind in present for body in rows[kind].drop_null().to_pylist() if body is not None
        ]


def data_file(add: Action) -> DataFile:
    """Give the live file that an add action describes; raises TableRefused for one outside of the table."""
    return DataFile(_path(add["path"]), add, Descriptor.from_action(add.get("deletionVector")))


def _identity(remove: Action) -> tuple[str, str | None]:
    vector = Descriptor.from_action(remove.get("deletionVector"))
    return _path(remove["path"]), vector.id if vector else None


def _path(logged: str) -> str:
    if "://" in logged or logged.startswith("/"):
        raise TableRefused(f"data file {logged} lies outside of its table (a shallow clone): make a full copy of it")
    return unquote(logged)


def complete_checkpoints(names: Iterable[str]) -> dict[int, list[str]]:
    """Give the complete checkpoints among names of a log folder: version -> file names, one or all parts."""
    found: dict[tuple[int, int], list[str]] = {}
    for name in sorted(names):
        if match := _CHECKPOINT.fullmatch(name):
            found.setdefault((int(match[1]), int(match[3] or 1)), []).append(name)
    return {version: parts for (version, count), parts in found.items() if len(parts) == count}


def _plain(body: Action) -> Action:
    """Give an action as the JSON log has it: maps as objects, nothing for null."""
    made = {key: value for key, value in body.items() if value is not None and key not in _DERIVED}
    for name in ("partitionValues", "tags", "configuration"):
        if isinstance(made.get(name), list):
            made[name] = dict(made[name])
    if isinstance(made.get("format"), dict):
        made["format"] = {**made["format"], "options": dict(made["format"].get("options") or ())}
    return made

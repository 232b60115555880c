"""Swap: a stream's tables become what a version beside them is, each by one commit.

The commit takes all files of the table out and the version's rows in, with its columns, protocol, properties, progress
and state. The table's id and name stay: readers see the one or the other, whenever the process ends. A stream has
several tables, and they follow one another, the anchor last; done again it goes on with the tables that are left.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from contracts.added import Added
from contracts.model import Contract
from lakehouse.added import claim_columns
from lakehouse.anchor import AnchorState
from lakehouse.errors import CommitContested, NotBegun, SwapRefused
from lakehouse.kind import TableKind
from lakehouse.kinds import kinds_of
from lakehouse.lake import Lake
from lakehouse.lanes import lanes
from lakehouse.lease import leased
from lakehouse.merge.copying import slices
from lakehouse.merge.data_files import Written, write_files
from lakehouse.merge.index_snapshot import remove_snapshots
from lakehouse.merge.log import Action
from lakehouse.merge.merge_table import MergeTable
from lakehouse.merge.protocol import verify_rewritable
from lakehouse.progress import Partition, Writer
from lakehouse.shape import shape_of
from lakehouse.table import Contested

FOLDER = "_tidegate/swapping"
OPERATION = "REPLACE TABLE"
SLICE_BYTES = 64 * 1024 * 1024  # of files, as Parquet, that are in memory at once
KEPT = ("id", "name", "description", "createdTime")  # of a table's metadata

Told = Callable[[str, int, int], None]  # table, bytes done, of how many


@dataclass(frozen=True)
class Swapped:
    """One table that became its version's."""

    table: str
    version: int  # of the table before
    files: int  # taken out
    rows: int  # put in
    already: bool = False  # an earlier call did it


def swap(
    lake: Lake, contract: Contract, other: Contract, pipeline: str, told: Told, *, accept_loss: bool = False
) -> list[Swapped]:
    """Let the tables of a stream become those of its version (other: the contract under the version's name).

    No job may write either. Raises NotBegun when the version has no tables, SwapRefused when it lacks records that the
    stream holds, or somebody else is at it, and CommitContested when somebody commits again and again.
    accept_loss: records from before the version begins may go.
    """
    with leased(lake, f"{FOLDER}/{pipeline}/{contract.stream}.json") as holder:
        if holder is not None:
            raise SwapRefused(
                f"stream {contract.stream}: a swap runs already (host {holder['host']}, process {holder['pid']}). "
                "Wait for it, or call again when it is gone."
            )
        state = _opened(lake, other, kinds_of(contract)[-1], Writer(pipeline)).state()
        if state is None:
            raise NotBegun(f"the version {other.stream} holds nothing yet: fill it with `tidegate replay --into`.")
        writer = Writer(pipeline, state.epochs())
        pairs = [
            _Pair(lake, _opened(lake, contract, kind, writer), _opened(lake, other, kind, writer), writer)
            for kind in kinds_of(contract)
        ]
        reached = pairs[-1].other.progress(state.partitions)
        for pair in pairs:
            pair.verify(reached)
        if not accept_loss:
            _verify_whole(contract, pairs[-1], state)
        return _swapped(contract, pairs, state, reached, told)


def take_columns(lake: Lake, stream: str, columns: Added) -> None:
    """Give a stream the columns that its version gained by itself. Raises SwapRefused for one of another type."""
    held = claim_columns(lake, stream, columns) if columns else {}
    if other := sorted(name for name, kind in columns.items() if held[name] != kind):
        raise SwapRefused(
            f"stream {stream}: its version has the columns {', '.join(other)} with another type. Name them in the "
            "contract, and fill the version anew."
        )


def _opened(lake: Lake, contract: Contract, kind: TableKind, writer: Writer) -> MergeTable:
    table = MergeTable(lake, kind, shape_of(kind, contract, {}), writer, guard=verify_rewritable)
    if not table.open():
        raise NotBegun(
            f"there is no table {table.name}: fill the version with `tidegate replay --into`, and start the pipeline "
            "with this contract once if the stream itself lacks the table."
        )
    return table


def _verify_whole(contract: Contract, anchor: _Pair, other: AnchorState) -> None:
    """Raise SwapRefused when the stream's tables hold records from before its version begins."""
    own = anchor.table.state()
    if own is None or anchor.done:
        return
    for partition, known in sorted(own.partitions.items()):
        begins = other.partitions[partition].begins if partition in other.partitions else None
        earlier = own.life(partition[0]).start > 0
        if begins is None or begins > known.begins or earlier:
            topic, number = partition
            raise SwapRefused(
                f"stream {contract.stream}: its tables hold topic {topic} partition {number} from "
                f"{'an earlier life of the topic' if earlier else f'offset {known.begins}'} on, the version from "
                f"{'nowhere' if begins is None else f'offset {begins}'} on: what Kafka no longer had would be gone. "
                "Keep both, or swap with --accept-loss."
            )


def _swapped(
    contract: Contract, pairs: Sequence[_Pair], state: AnchorState, reached: Mapping[Partition, int], told: Told
) -> list[Swapped]:
    done: list[Swapped] = []
    seen: dict[str, tuple[str, int]] = {}
    whole = replace(state, stream=contract.stream, last_counts={}, ranges=())
    for pair in pairs[:-1]:
        done.append(pair.run(replace(whole, partitions={}, watermark_ms=None, tables={}), reached, told))
        seen[pair.table.kind.name] = (pair.table.table_id, pair.table.version)
    return [*done, pairs[-1].run(replace(whole, tables=seen), reached, told)]


@dataclass(frozen=True)
class _Pair:
    """A table, and its version's."""

    lake: Lake
    table: MergeTable
    other: MergeTable
    writer: Writer

    @property
    def mark(self) -> tuple[str, int]:
        """Give the application id and number by which a table says that it became this version."""
        return f"tidegate/swap/{self.other.table_id}", self.other.version

    @property
    def done(self) -> bool:
        """Whether the table became this version already."""
        app, number = self.mark
        return self.table.transaction(app) == number

    def verify(self, reached: Mapping[Partition, int]) -> None:
        """Raise SwapRefused when the table holds what the version does not reach."""
        state = self.table.state()
        if state is None or self.done:
            return
        for lane in lanes(state.lanes):
            for (topic, number), own in sorted(self.table.lane_progress(reached, lane).items()):
                if own > reached[topic, number]:
                    raise SwapRefused(
                        f"table {self.table.name} holds topic {topic} partition {number} up to offset {own}, its "
                        f"version up to {reached[topic, number]}. Read on with `tidegate replay --into`, then swap."
                    )
        if unread := sorted(state.partitions.keys() - reached.keys()):
            topic, number = unread[0]
            raise SwapRefused(
                f"table {self.table.name} holds topic {topic} partition {number}, its version does not. Read on with "
                "`tidegate replay --into`, then swap."
            )

    def run(self, state: AnchorState, reached: Mapping[Partition, int], told: Told) -> Swapped:
        """Commit, on top of the snapshot that was verified or not at all."""
        before, files = self.table.version, len(self.table.files())
        rows = sum(self.other.row_count(number) - file.dead for number, file in self.other.files().items())
        if self.done:
            return Swapped(self.table.name, before, files, rows, already=True)
        written = self._written(told)
        remove_snapshots(self.lake, self.table.name)  # of keys as they were
        try:
            self.table.replace_all(
                written, self._also(reached), replace(state, commit=uuid.uuid4().hex), operation=OPERATION
            )
        except Contested as error:
            raise CommitContested(
                f"table {self.table.name}: somebody else committed meanwhile. Stop what writes it, and swap again."
            ) from error
        return Swapped(self.table.name, before, files, rows)

    def _written(self, told: Told) -> list[Written]:
        """Write the version's rows into the table's folder, a bounded number of bytes at a time."""
        files, done, written = self.other.files(), 0, list[Written]()
        whole = sum(file.size for file in files.values())
        for numbers in slices(files, files, SLICE_BYTES):
            rows = pa.concat_tables([self.other.living(number) for number in numbers])
            written += write_files(self.lake, self.table.name, rows, self.other.layout)
            done += sum(files[number].size for number in numbers)
            told(self.table.name, done, whole)
        return written

    def _also(self, reached: Mapping[Partition, int]) -> list[Action]:
        """Give the actions that say the version's columns, protocol and properties, its progress, and which it is."""
        kept = {name: self.table.metadata[name] for name in KEPT if name in self.table.metadata}
        protocol = [] if self.other.protocol == self.table.protocol else [{"protocol": self.other.protocol}]
        app, number = self.mark
        ids = {self.writer.app_id(partition): last for partition, last in reached.items()} | {app: number}
        txns = [{"txn": {"appId": app, "version": last}} for app, last in ids.items()]
        return [*protocol, {"metaData": {**self.other.metadata, **kept}}, *txns]

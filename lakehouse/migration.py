"""Migrate: bring a stream's tables to what its contract now wants where a start refuses, by writing their files again.

Each table is one commit that takes its old files out and the new ones in, with the new columns: readers see the old
table or the new one, whenever the process ends, and earlier versions stay readable. Done again it goes on with the
tables that are left; a start refuses until all are done. Before the first table is touched all are looked through for
values that would become others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
from deltalake import Schema

from contracts.model import Contract, Storage
from lakehouse.added import effective
from lakehouse.casts import Loss, Text, cast_between, converted, verify_partition
from lakehouse.errors import CommitContested, MigrationRefused
from lakehouse.kinds import STATE, following_kinds, kinds_of
from lakehouse.lake import Lake
from lakehouse.lease import leased
from lakehouse.merge.copying import slices
from lakehouse.merge.data_files import Layout, Written, write_files
from lakehouse.merge.index_snapshot import remove_snapshots
from lakehouse.merge.log import Action, DataFile
from lakehouse.merge.merge_table import MergeTable
from lakehouse.merge.protocol import ENABLE_VECTORS, changed_storage, vectored, verify_rewritable, widened
from lakehouse.progress import Writer
from lakehouse.shape import shape_of, types_of
from lakehouse.table import Contested

FOLDER = "_tidegate/migrating"
OPERATION = "MIGRATE"
SLICE_BYTES = 64 * 1024 * 1024  # of files, as Parquet, that are in memory at once
ATTEMPTS = 3
COORDINATES = ("_topic", "_partition", "_offset")


@dataclass(frozen=True)
class Plan:
    """What one table needs."""

    table: str
    version: int
    changes: tuple[str, ...]  # what becomes of it, each as a phrase
    files: int  # to be written again
    bytes: int


@dataclass(frozen=True)
class Progress:
    """How far the work on one table is."""

    table: str
    checking: bool  # looked through for values that would be lost, before anything is written
    done: int  # bytes
    of: int


Told = Callable[[Progress], None]


def check(lake: Lake, contract: Contract, pipeline: str, pins: Mapping[str, str], text: Text, told: Told) -> list[Plan]:
    """Give the plans, once every value that would change its type was found to stay what it is; changes nothing."""
    found = [(one, plan) for one in _tables(lake, contract, pipeline, pins, text) if (plan := one.plan())]
    for one, _ in found:
        one.check(told)
    return [plan for _, plan in found]


def migrate(
    lake: Lake, contract: Contract, pipeline: str, pins: Mapping[str, str], text: Text, told: Told
) -> list[tuple[Plan, int]]:
    """Bring the tables of a stream to what its contract wants; gives what was done, with each table's new version.

    Nothing else should write the stream. Raises MigrationRefused when values would become others, naming the first,
    or when another migration runs; and CommitContested when somebody else commits to a table again and again.
    """
    with leased(lake, f"{FOLDER}/{pipeline}/{contract.stream}.json") as holder:
        if holder is not None:
            raise MigrationRefused(
                f"stream {contract.stream}: another migration runs on host {holder.get('host')}, process "
                f"{holder.get('pid')}, seen {holder['seconds']} s ago. Wait for it; one that was killed is taken for "
                "ended a minute later."
            )
        check(lake, contract, pipeline, pins, text, told)
        done = []
        for one in _tables(lake, contract, pipeline, pins, text):
            if plan := one.plan():
                one.run(told)
                done.append((plan, one.version))
        return done


def _tables(
    lake: Lake, contract: Contract, pipeline: str, pins: Mapping[str, str], text: Text
) -> Iterator[TableMigration]:
    contract = effective(lake, contract)
    for kind in (*kinds_of(contract), *following_kinds(contract)):
        table = MergeTable(lake, kind, shape_of(kind, contract, pins), Writer(pipeline), guard=verify_rewritable)
        if table.open():
            table.state()  # raises for a table that is not this pipeline's
            yield TableMigration(lake, contract, table, text)


class TableMigration:
    """Gives what one table needs, and does it. What a start takes over, such as added columns, is no reason for it.

    The columns of a table that is written again take the contract's order.
    """

    def __init__(self, lake: Lake, contract: Contract, table: MergeTable, text: Text) -> None:
        self._lake = lake
        self._contract = contract
        self._table = table
        self._shape = table.shape
        self._text = text

    @property
    def version(self) -> int:
        """Give the table's version."""
        return self._table.version

    def plan(self) -> Plan | None:
        """Give what the table needs; None when a start takes it as it is. Raises MigrationRefused."""
        self._refuse()
        changes = tuple(self._changes())
        if not changes:
            return None
        files = self._rewritten()
        return Plan(self._table.name, self.version, changes, len(files), sum(file.size for file in files.values()))

    def check(self, told: Told) -> None:
        """Raise MigrationRefused when a value would become another one; reads only the columns that change."""
        files, changing = self._rewritten(), {*self._retyped(), *self._regrouped()}
        read = [name for name in self._table.columns.names if name in changing]
        wanted = pa.schema([self._columns.field(name) for name in read])
        whole, done = sum(file.size for file in files.values()), 0
        for number, file in files.items() if read else ():
            try:
                self._converted(self._table.living(number, read), wanted)
            except Loss as loss:
                places = self._table.living(number, self._places).slice(loss.row, 1).to_pylist()[0]
                raise self._lossy(loss, places) from None
            done += file.size
            told(Progress(self._table.name, True, done, whole))

    def run(self, told: Told) -> None:
        """Write the files again and commit; goes on from the newest version when somebody else committed."""
        for _ in range(ATTEMPTS):
            try:
                files = self._rewritten()
                written = self._written(files, told)
                remove_snapshots(self._lake, self._table.name)  # of keys as they were
                self._table.exchange(list(files), written, self._actions(), operation=OPERATION)
                return
            except Contested:
                self._table.open()
                if self.plan() is None:
                    return
        raise CommitContested(
            f"table {self._table.name}: others committed in every attempt to migrate it. Stop what writes it, and "
            "migrate again."
        )

    def _refuse(self) -> None:
        """Raise MigrationRefused for what cannot be brought to the contract, KeyPinChanged for another mask key."""
        table, shape = self._table, self._shape
        old = table.columns
        added = {name for name in shape.columns.names if name not in old.names}
        shape.verify_pins(table.metadata.get("configuration") or {}, added)
        masked = {f.name for f in self._contract.fields if f.mask} | {d.name for d in self._contract.derived if d.mask}
        problems = [
            f"column {name} is not in the contract any more, and would be lost: name it there again"
            for name in old.names
            if name not in shape.columns.names
        ]
        for name in self._retyped():
            was, becomes = old.field(name).type, self._columns.field(name).type
            if name in masked:
                problems.append(f"column {name} is masked, and what the table holds of it was masked as another type")
            elif cast_between(was, becomes, self._text) is None:
                problems.append(f"column {name} cannot go from {was} to {becomes}: a value could become another one")
        if problems:
            raise MigrationRefused(
                f"table {table.name}: {'; '.join(problems)}. Correct the contract, or move the stream's tables away "
                "and build them again."
            )

    def _changes(self) -> Iterator[str]:
        """Say what becomes of the table."""
        old, new = self._table.columns, self._columns
        for name in self._retyped():
            yield f"{name} from {old.field(name).type} to {new.field(name).type}"
        if self._shape.partition_by != self._partitions:
            yield f"partitioned by {_listed(self._shape.partition_by)}, no longer by {_listed(self._partitions)}"
        if self._vectors != vectored(self._table.protocol):
            yield "with deletion vectors" if self._vectors else "without deletion vectors"

    @property
    def _columns(self) -> pa.Schema:
        """Give the wanted columns, as the log will say them."""
        return pa.schema(Schema.from_arrow(self._shape.columns).to_arrow())

    @property
    def _partitions(self) -> tuple[str, ...]:
        return tuple(self._table.metadata.get("partitionColumns") or ())

    @property
    def _vectors(self) -> bool:
        """Whether the table is to have deletion vectors: a table of the state as the contract says, others as ever."""
        if self._table.kind in STATE:
            return self._shape.storage is Storage.MERGE_ON_READ
        return vectored(self._table.protocol)

    def _retyped(self) -> list[str]:
        """Give the columns whose type changes."""
        wanted, got = types_of(self._shape.columns), types_of(self._table.columns)
        return [name for name, kind in got.items() if wanted.get(name, kind) != kind]

    def _regrouped(self) -> tuple[str, ...]:
        """Give the partition columns whose values the log is to hold anew."""
        own, retyped = self._shape.partition_by, self._retyped()
        return own if own != self._partitions else tuple(name for name in own if name in retyped)

    def _rewritten(self) -> dict[int, DataFile]:
        """Give the files that are to be written again."""
        files = dict(self._table.files())
        if self._retyped() or self._shape.partition_by != self._partitions:
            return files
        kept = self._vectors or not vectored(self._table.protocol)
        return {} if kept else {number: file for number, file in files.items() if file.vector}

    def _written(self, files: Mapping[int, DataFile], told: Told) -> list[Written]:
        """Write the rows of files anew, a bounded number of bytes at a time."""
        columns = self._columns
        layout = Layout(columns, self._shape.partition_by, self._shape.statistics)
        whole, done, written = sum(file.size for file in files.values()), 0, list[Written]()
        for numbers in slices(files, files, SLICE_BYTES):
            rows = pa.concat_tables([self._table.living(number) for number in numbers])
            try:
                made = self._converted(rows, columns)
            except Loss as loss:  # of a row that came since the check
                raise self._lossy(loss, rows.slice(loss.row, 1).to_pylist()[0]) from None
            written += write_files(self._lake, self._table.name, made, layout, data_change=False)
            done += sum(files[number].size for number in numbers)
            told(Progress(self._table.name, False, done, whole))
        return written

    def _converted(self, rows: pa.Table, columns: pa.Schema) -> pa.Table:
        made = converted(rows, columns, self._text)
        verify_partition(made, [name for name in self._regrouped() if name in columns.names])
        return made

    def _actions(self) -> list[Action]:
        """Give the actions that say the wanted columns, partitioning, properties and protocol."""
        table, shape = self._table, self._shape
        protocol = table.protocol
        if self._vectors != vectored(protocol):
            protocol = changed_storage(protocol, vectors=self._vectors)
        protocol = widened(protocol, shape.columns) or protocol
        configuration = {**(table.metadata.get("configuration") or {}), **shape.configuration()}
        if self._vectors:
            configuration[ENABLE_VECTORS] = "true"
        else:
            configuration.pop(ENABLE_VECTORS, None)
        metadata = {
            **table.metadata,
            "schemaString": self._schema_string(),
            "partitionColumns": list(shape.partition_by),
            "configuration": {name: value for name, value in configuration.items() if value is not None},
        }
        return [*([{"protocol": protocol}] if protocol != table.protocol else []), {"metaData": metadata}]

    def _schema_string(self) -> str:
        """Give the wanted columns in the log's form; what else the log says of a column stays."""
        said = {
            f["name"]: f.get("metadata") or {} for f in orjson.loads(self._table.metadata["schemaString"])["fields"]
        }
        wanted = orjson.loads(Schema.from_arrow(self._shape.columns).to_json())
        for field in wanted["fields"]:
            field["metadata"] = said.get(field["name"], {})
        return orjson.dumps(wanted).decode()

    @property
    def _places(self) -> list[str]:
        """Give the columns that tell a row from others and hold nothing private."""
        keys = [f.name for f in self._contract.key if not f.private and not f.mask]
        return [name for name in (*keys, *COORDINATES) if name in self._table.columns.names]

    def _lossy(self, loss: Loss, row: Mapping[str, Any]) -> MigrationRefused:
        place = ", ".join(f"{name} {row[name]}" for name in self._places)
        return MigrationRefused(
            f"table {self._table.name}: the value of column {loss.column} in the row with {place} would become another "
            f"one as {self._columns.field(loss.column).type}. The table was not changed: let the contract name a type "
            "that holds it, or correct the value at the source."
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"

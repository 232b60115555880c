"""What a stream's table looks like: columns, partitioning, statistics, pinned keys; and how it may change. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
from deltalake import Schema

from contracts.model import Contract, Storage
from lakehouse.errors import KeyPinChanged, SchemaRefused
from lakehouse.kind import TableKind

STATISTICS = "delta.dataSkippingStatsColumns"
PIN = "tidegate.pin."
DEFINITION = "tidegate.aggregate"
_PLAIN_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class TableShape:
    """The wanted shape of one table."""

    name: str
    columns: pa.Schema
    partition_by: tuple[str, ...]
    statistics: tuple[str, ...]  # columns whose smallest and largest values the log may hold
    pins: Mapping[str, str]  # field -> id and fingerprint of its deterministic mask's key
    storage: Storage = Storage.MERGE_ON_READ  # of a table in which rows change
    definition: str = ""  # what an aggregate's rows mean, as JSON

    def configuration(self) -> dict[str, str | None]:
        """Give the Delta table properties."""
        told = {DEFINITION: self.definition} if self.definition else {}
        return {STATISTICS: ",".join(self.statistics), **{f"{PIN}{f}": pin for f, pin in self.pins.items()}, **told}

    def added(self, table: str, current: Schema, partitions: list[str]) -> list[pa.Field]:
        """Give the columns that the table lacks; raises SchemaRefused for any other difference."""
        wanted, got = types_of(self.columns), {field.name: field.type.to_json() for field in current.fields}
        changed = [name for name, kind in got.items() if wanted.get(name) != kind]
        if changed or list(self.partition_by) != partitions:
            raise SchemaRefused(
                f"table {table}: columns {changed} or the partitioning differ. "
                f"The contract wants {_shown(wanted)} partitioned by {list(self.partition_by)}; "
                f"the table has {_shown(got)} partitioned by {partitions}. A start takes over added columns only: "
                "correct the contract, rewrite the table with `tidegate migrate` (`--dry-run` says whether it can), "
                "or move the stream's tables away and build them again."
            )
        return [field for field in self.columns if field.name not in got]

    def verify_definition(self, configuration: Mapping[str, str | None]) -> None:
        """Raise SchemaRefused when the table's rows were aggregated in another way than the contract now says."""
        stored = configuration.get(DEFINITION) or ""
        if self.definition != stored:
            raise SchemaRefused(
                f"table {self.name} was aggregated as {stored}, the contract now says {self.definition}: its rows "
                "would mean two things. Give the new aggregate another name; it is counted from the changes."
            )

    def verify_pins(self, configuration: Mapping[str, str | None], new_columns: set[str]) -> None:
        """Raise KeyPinChanged when a mask's key is not the one that masked the values in the table."""
        stored = {key.removeprefix(PIN): pin for key, pin in configuration.items() if key.startswith(PIN)}
        for field in sorted(self.pins.keys() | stored.keys()):
            if field not in new_columns and self.pins.get(field) != stored.get(field):
                raise KeyPinChanged(
                    f"table {self.name}: field {field} was masked with key {stored.get(field, 'none')}, the contract "
                    f"now masks it with {self.pins.get(field, 'none')}: equal values would no longer be equal. "
                    "Put the old key back, or move the stream's tables away and build them again."
                )


def types_of(schema: pa.Schema) -> dict[str, str]:
    """Give each column's Delta type as JSON."""
    return {field.name: field.type.to_json() for field in Schema.from_arrow(schema).fields}


def shape_of(kind: TableKind, contract: Contract, pins: Mapping[str, str]) -> TableShape:
    """Give the shape that a contract wants of one of its tables."""
    columns = kind.columns(contract)
    partition_by = tuple(name for name in contract.partition_by if kind.partitioned and name in columns.names)
    private = {f.name for f in contract.fields if f.private or f.mask} | {
        d.name for d in contract.derived if d.private or d.mask
    }
    private |= {m.name for one in contract.aggregates for m in one.measures if m.column in private}
    statistics = tuple(
        field.name
        for field in columns
        if _comparable(field.type)
        and field.name not in {*private, *partition_by, *UNSHOWN}
        and _PLAIN_NAME.fullmatch(field.name)
    )
    own_pins = {field: pin for field, pin in pins.items() if field in columns.names}
    name, storage = kind.table_name(contract.stream), contract.state.storage
    return TableShape(name, columns, partition_by, statistics, own_pins, storage, kind.definition)


# Columns of ours that hold (masked) values of the record.
UNSHOWN = frozenset({"_previous_key", "_next_key", "_key", "_extra", "_payload", "_reason"})


def _comparable(kind: pa.DataType) -> bool:
    """Whether the smallest and largest value of a column help to skip files."""
    return bool(pa.types.is_primitive(kind) or pa.types.is_string(kind) or pa.types.is_decimal(kind))


def _shown(types: Mapping[str, str]) -> str:
    return "(" + ", ".join(f"{name} {kind}" for name, kind in sorted(types.items())) + ")"

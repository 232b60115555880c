"""What normalise hands on: the change events of one stream, the records refused, and the kind of every record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from contracts.columns import REFINED_META
from contracts.model import Contract
from udfs.glimpses import Glimpse, Sign

# Gives the Avro writer schema (JSON text) of a registry id.
SchemaSource = Callable[[int], str]

# The columns of REFINED_META that a Changes table holds; the other three travel beside the table.
KEPT_APART = ("_unset", "_flags", "_violations")
META = pa.schema([f for f in REFINED_META if f.name not in KEPT_APART])


class UnknownSchema(Exception):  # noqa: N818 (what the registry said, not a fault of ours)
    """The registry answered that no schema has this id: the record is rejected, the stream goes on."""


class RegistryUnavailable(Exception):  # noqa: N818
    """The registry did not answer: the batch must be tried again, no record may be rejected for it."""


@dataclass(frozen=True)
class Changes:
    """Normalised change events of one stream, one row per data message, in batch order.

    The table holds every contract field (private and dropped ones too, unmasked, in contract order, as
    `field.type.arrow`), then derived columns once derived, then META. `_previous_key` and `_next_key` hold the JSON
    of the unmasked key until they are masked.
    """

    table: pa.Table
    row: pa.Array  # int64: index of each row in the raw batch
    unset: Mapping[str, pa.BooleanArray] = dataclasses.field(default_factory=dict)  # field -> value was not sent
    flags: Mapping[str, pa.StringArray] = dataclasses.field(default_factory=dict)  # field -> reason of a null, or null
    violations: Mapping[str, pa.BooleanArray] = dataclasses.field(default_factory=dict)  # rule with action warn

    def __len__(self) -> int:
        return len(self.row)

    def where(self, mask: pa.BooleanArray) -> Changes:
        """Give the rows for which the mask is true (null counts as false), with all that belongs to them."""
        if len(mask) == 0 or pc.all(mask, skip_nulls=False, min_count=0).as_py():
            return self
        return Changes(
            self.table.filter(mask),
            self.row.filter(mask),
            _filtered(self.unset, mask),
            _filtered(self.flags, mask),
            _filtered(self.violations, mask),
        )


def _filtered(columns: Mapping[str, pa.Array], mask: pa.BooleanArray) -> dict[str, pa.Array]:
    """Filter each array, leaving out those that have nothing true (or not null) any more."""
    filtered = {name: column.filter(mask) for name, column in columns.items()}
    return {name: column for name, column in filtered.items() if _says_anything(column)}


def _says_anything(column: pa.Array) -> bool:
    if pa.types.is_boolean(column.type):
        return bool(pc.any(column, min_count=0).as_py())
    return bool(len(column) > column.null_count)


@dataclass(frozen=True)
class Rejects:
    """Records refused at one stage, by index in the raw batch."""

    row: pa.Array  # int64
    stage: str  # decode, normalise or check
    rules: pa.ListArray  # list<string>, such as ["undecodable"] or ["unrepresentable:amount"]
    reason: pa.StringArray  # a sentence that holds no value of the record

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def of(cls, stage: str, rows: Sequence[int], rules: Sequence[Sequence[str]], reasons: Sequence[str]) -> Rejects:
        """Give the rejects of one stage from plain Python values."""
        return cls(
            pa.array(rows, pa.int64()),
            stage,
            pa.array([list(names) for names in rules], pa.list_(pa.string())),
            pa.array(reasons, pa.string()),
        )


@dataclass(frozen=True)
class Normalised:
    """All that decode and normalise make of one raw batch: every record is in changes, in rejects, or only counted."""

    changes: Changes
    rejects: tuple[Rejects, ...]
    kinds: pa.Array  # string, one per raw record: a name in udfs.kinds
    readable: Changes  # the changes, and the refused records that could be read, null where a value could not be
    fallbacks: int = 0  # groups of records that the vectorised decoder could not read as a whole
    glimpses: tuple[Glimpse, ...] = ()  # what the messages show of the source's columns
    signs: tuple[Sign, ...] = ()


def changes_table_schema(contract: Contract) -> pa.Schema:
    """Give the schema of a Changes table before derived columns are added."""
    return pa.schema([*((f.name, f.type.arrow) for f in contract.fields), *META])

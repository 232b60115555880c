"""What normalise works out once per contract."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from contracts.model import Contract, Envelope, Field
from udfs.changes import changes_table_schema
from udfs.compiled import Compiled
from udfs.decode_json import Shape
from udfs.names import adjusted


@dataclass(frozen=True)
class Plan:
    """A contract with the shape of its JSON messages and the names of its fields."""

    contract: Contract
    shape: Shape
    names: dict[str, tuple[str, ...]]  # field -> names it may have in a message, the current one first
    adjusted: dict[str, tuple[str, ...]]  # the same as Avro writes them
    schema: pa.Schema  # of a Changes table
    generated: tuple[int, ...]  # places of fields that streamed changes do not hold

    @property
    def plain(self) -> bool:
        """Whether records are events without an envelope."""
        return self.contract.envelope is Envelope.PLAIN


def _plan(contract: Contract) -> Plan:
    names = {f.name: (f.source, *f.aliases) for f in contract.fields}
    in_avro = {f.name: _in_avro(f) for f in contract.fields}
    generated = tuple(place for place, f in enumerate(contract.fields) if f.generated)
    return Plan(contract, Shape.of(contract), names, in_avro, changes_table_schema(contract), generated)


def _in_avro(field: Field) -> tuple[str, ...]:
    plain = (field.source, *field.aliases)
    return tuple(dict.fromkeys((*plain, *(adjusted(n) for n in plain))))


plan_of: Compiled[Plan] = Compiled(_plan)

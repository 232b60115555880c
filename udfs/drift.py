"""Drift: where messages and their contract say different things of the source's columns, told once each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from contracts.model import Contract, Envelope, Field
from contracts.types import ColumnType, parse_type
from udfs.glimpses import Glimpse, Sign
from udfs.names import adjusted
from udfs.written_types import compared, written

ADDED, DROPPED, GENERATED = "column_added", "column_dropped", "generated_column"


@dataclass(frozen=True)
class Drift:
    """One difference: its kind, its column with the types before (declared) and after, and a record that shows it."""

    kind: str
    column: str | None
    before: str | None
    after: str | None
    row: int  # index in the raw batch
    schema_id: int | None = None


class DriftWatch:
    """Watches one stream's batches and tells each drift once. Holds nothing but what it has seen: a cache."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._names = {f.name: _names(f) for f in contract.fields}
        self._known = frozenset(name for names in self._names.values() for name in names)
        self._gained: tuple[Field, ...] = ()
        self._seen: set[tuple[frozenset[tuple[str, str | None]], bool, frozenset[str]]] = set()
        self._told: set[tuple[str, str | None, str | None, str | None]] = set()
        self._in_snapshots: set[str] = set()
        self._streamed: set[str] = set()

    def notes(self, glimpses: Sequence[Glimpse], signs: Sequence[Sign], gained: Sequence[Field] = ()) -> list[Drift]:
        """Give what a batch shows for the first time, in its order; `gained` are the columns that joined the tables."""
        self._gained = tuple(gained)
        self._names.update((f.name, _names(f)) for f in gained)
        found = [Drift(s.kind, None, None, None, s.row, s.schema_id) for s in signs]
        for glimpse in glimpses:
            shape = (frozenset(glimpse.columns.items()), glimpse.snapshot, self._here())
            if shape not in self._seen:
                self._seen.add(shape)
                found += self._compared(glimpse)
        new = []
        for drift in found:
            what = (drift.kind, drift.column, drift.before, drift.after)
            if what not in self._told:
                self._told.add(what)
                new.append(drift)
        return new

    def _compared(self, glimpse: Glimpse) -> Iterator[Drift]:
        present = {name for name, names in self._names.items() if names & glimpse.columns.keys()}
        (self._in_snapshots if glimpse.snapshot else self._streamed).update(present)
        for name, kind in glimpse.columns.items():
            if name not in self._known:
                yield Drift(ADDED, name, None, kind, glimpse.row, glimpse.schema_id)
        for field in (*self._contract.fields, *self._gained):
            if field.name not in present and field.generated and not glimpse.snapshot:
                continue  # as the contract says
            if field in self._gained and field.name not in self._here():
                continue  # messages from before it came
            if field.name not in present:
                yield from self._absent(field, glimpse)
            elif glimpse.typed and self._contract.envelope is Envelope.DEBEZIUM:
                yield from self._typed(field, glimpse)

    def _here(self) -> frozenset[str]:
        """Give the gained columns that messages were seen to have."""
        return frozenset(f.name for f in self._gained if f.name in self._streamed or f.name in self._in_snapshots)

    def _absent(self, field: Field, glimpse: Glimpse) -> Iterator[Drift]:
        only_read = field.name in self._in_snapshots and field.name not in self._streamed
        kind = GENERATED if only_read and not glimpse.snapshot else DROPPED
        yield Drift(kind, field.name, written(field.type), None, glimpse.row, glimpse.schema_id)

    def _typed(self, field: Field, glimpse: Glimpse) -> Iterator[Drift]:
        for name in sorted(self._names[field.name] & glimpse.columns.keys()):
            sent = glimpse.columns[name]
            kind = _type_of(sent)
            drift = compared(field.type, kind) if kind is not None else None
            if drift is not None:
                yield Drift(drift, field.name, written(field.type), sent, glimpse.row, glimpse.schema_id)


def _names(field: Field) -> frozenset[str]:
    plain = {field.source, *field.aliases}
    return frozenset(plain | {adjusted(name) for name in plain})


def _type_of(sent: str | None) -> ColumnType | None:
    try:
        return None if sent is None else parse_type(sent)
    except ValueError:
        return None

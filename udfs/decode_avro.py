"""Confluent-framed Avro values to Arrow columns: per writer schema all at once, split only around a bad record.

Framing: a zero byte, the schema id (4 bytes, big-endian), the datum.
https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
"""

from __future__ import annotations

import io
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import fastavro
import numpy as np
import orjson
import pyarrow as pa

from contracts.model import Contract, Envelope, UnknownFields
from udfs import kinds, slices
from udfs.avro_container import HEADER, Reader, bare
from udfs.changes import SchemaSource, UnknownSchema
from udfs.decoded import Decoded, Piece, Refusal, unknown_field
from udfs.names import names_in_avro
from udfs.placeholders import unsent
from udfs.slices import Ints
from udfs.wire import Hints
from udfs.writer_schemas import Columns, avro_columns, avro_hints

_ENVELOPE = ("before", "after", "source", "op")
_PARTS = 16  # groups a failed group is split into
_MOST_SCHEMAS = 2048


@dataclass(frozen=True)
class Writer:
    """One writer schema, ready for reading."""

    reader: Reader | None  # None: fastavro reads this schema, record by record
    parsed: Any  # fastavro's form
    hints: Hints
    columns: Columns  # of the row (inside `after` of an envelope)
    kind: str | None  # what its records are when they are no changes


def decode_avro(values: pa.BinaryArray, row: Ints, contract: Contract, schemas: SchemaSource) -> Decoded:
    """Read values (not null) that stand at the given rows of the raw batch; never raises on any bytes.

    Raises RegistryUnavailable, as `schemas` does, when a schema cannot be had now.
    """
    decoded = Decoded()
    ids = _ids(values, row, decoded)
    for schema_id in np.unique(ids[ids >= 0]).tolist():
        index = np.flatnonzero(ids == schema_id)
        try:
            writer = _writer(schema_id, schemas, contract.envelope is Envelope.DEBEZIUM)
        except UnknownSchema:
            _refuse(decoded, row[index], "unknown_schema", "the registry has no schema of the record's schema id")
            continue
        except ValueError:
            _refuse(decoded, row[index], "unusable_schema", "the record's schema is not a readable Avro record schema")
            continue
        if writer.kind is not None:
            _count(decoded, row[index], writer.kind, contract)
        else:
            group = _Group(values, row, contract, writer, schema_id, decoded)
            group.read(index)
            group.finish()
    return decoded


def _ids(values: pa.BinaryArray, row: Ints, decoded: Decoded) -> Ints:
    """Give each value's schema id, -1 (and a refusal) where there is no framing."""
    bounds, held = slices.offsets(values), slices.data(values)
    framed = np.diff(bounds) >= HEADER
    ids = np.full(len(values), -1, np.int64)
    starts = bounds[:-1][framed]
    head = held[starts[:, None] + np.arange(HEADER)].astype(np.int64)
    number = (head[:, 1] << 24) | (head[:, 2] << 16) | (head[:, 3] << 8) | head[:, 4]
    ids[framed] = np.where(head[:, 0] == 0, number, -1)
    _refuse(decoded, row[ids < 0], "undecodable", "the value does not begin with Confluent's framing")
    return ids


class _Group:
    """Reads the values of one writer schema into pieces."""

    def __init__(
        self, values: pa.BinaryArray, row: Ints, contract: Contract, writer: Writer, schema_id: int, into: Decoded
    ) -> None:
        self.values, self.row, self.contract, self.writer = values, row, contract, writer
        self.schema_id, self.into = schema_id, into
        self.batches: list[tuple[Ints, pa.RecordBatch]] = []

    def read(self, index: Ints) -> None:
        """Read the values at `index` together; split them when that fails."""
        values = self.values if len(index) == len(self.values) else self.values.take(pa.array(index))
        batch = self.writer.reader.read(values) if self.writer.reader else self._one_by_one(index)
        if batch is not None:
            self.batches.append((index, batch))
        elif len(index) == 1:
            _refuse(self.into, self.row[index], "undecodable", "the datum does not fit its writer schema")
        else:
            self.into.fallbacks += 1
            for part in np.array_split(index, min(_PARTS, len(index))):
                self.read(part)

    def finish(self) -> None:
        """Make one piece of what was read; several where fastavro's records differ in type."""
        same = all(batch.schema.equals(self.batches[0][1].schema) for _, batch in self.batches)
        if len(self.batches) > 1 and same:
            index = np.concatenate([i for i, _ in self.batches])
            table = pa.Table.from_batches([b for _, b in self.batches]).combine_chunks()
            self.batches = [(index, table.to_batches()[0])]
        for index, batch in self.batches:
            self._keep(index, batch)

    def _one_by_one(self, index: Ints) -> pa.RecordBatch | None:
        """Read with fastavro: only for schemas that the vectorised reader does not take."""
        records = []
        for i in index.tolist():
            record = _read_one(self.values[i].as_py(), self.writer.parsed)
            if record is None:
                return None
            records.append(record)
        try:
            return pa.RecordBatch.from_pylist(records)
        except (pa.ArrowException, ValueError, OverflowError, TypeError):
            return None

    def _keep(self, index: Ints, batch: pa.RecordBatch) -> None:
        columns = {name: batch.column(i) for i, name in enumerate(batch.schema.names)}
        if self.contract.envelope is Envelope.DEBEZIUM:
            known = slices.mask_of(pa.compute.is_in(columns["op"].cast(pa.string()), value_set=_OPS))
            if not known.all():
                self._not_changes(index[~known], columns["op"].filter(slices.marks(~known)))
                columns = {n: c.filter(slices.marks(known)) for n, c in columns.items()}
                index = index[known]
        if len(index):
            extra = self._unknown(columns, index)
            beside = (self.schema_id, extra, self.writer.columns)
            self.into.pieces.append(Piece(self.row[index], columns, self.writer.hints, False, *beside))

    def _not_changes(self, index: Ints, ops: pa.Array) -> None:
        for i, op in zip(index.tolist(), ops.to_pylist(), strict=True):
            if op == "m":
                self.into.counted.append((int(self.row[i]), kinds.MESSAGE))
            else:
                _refuse(self.into, self.row[[i]], "no_envelope", "the value is not a Debezium change event")

    def _unknown(self, columns: dict[str, pa.Array], index: Ints) -> pa.StringArray | None:
        """Apply the contract's policy for fields it does not name; they are the same for a whole writer schema."""
        policy = self.contract.unknown_fields
        if policy is UnknownFields.IGNORE:
            return None
        known = names_in_avro(self.contract)
        names = [n for n in self.writer.columns if n not in known]
        if not names:
            return None
        if policy is UnknownFields.QUARANTINE:
            self.into.refusals += [unknown_field(int(row)) for row in self.row[index]]
            return None
        return _extra(columns, names, self.contract.envelope is Envelope.DEBEZIUM)


_OPS = pa.array(kinds.CHANGES, pa.string())


def _extra(columns: dict[str, pa.Array], names: list[str], envelope: bool) -> pa.StringArray:
    """Write the unknown fields as JSON, one row at a time: Arrow has no kernel for it."""
    source = columns
    if envelope:
        after = columns["after"]
        source = dict(zip((f.name for f in after.type), after.flatten(), strict=True))
    table = pa.table({n: source[n] for n in names})
    sent = [{name: v for name, v in record.items() if not unsent(v)} for record in table.to_pylist()]
    texts = [orjson.dumps(record, default=_plain).decode() if record else None for record in sent]
    if envelope:
        texts = [t if v else None for t, v in zip(texts, slices.valid(columns["after"]), strict=True)]
    return pa.array(texts, pa.string())


def _plain(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _count(decoded: Decoded, rows: Ints, kind: str, contract: Contract) -> None:
    if kind == kinds.UNKNOWN and contract.fields:
        _refuse(decoded, rows, "no_envelope", "the value is not a Debezium change event")
    else:
        decoded.counted += [(int(r), kind) for r in rows]


def _refuse(decoded: Decoded, rows: Ints, rule: str, reason: str) -> None:
    decoded.refusals += [Refusal(int(r), "decode", rule, reason) for r in rows]


def _read_one(value: bytes, parsed: Any) -> Any:
    source = io.BytesIO(value[HEADER:])
    try:
        record = fastavro.schemaless_reader(source, parsed, None)
    except Exception:  # fastavro raises whatever its parsing meets on arbitrary bytes
        return None
    return record if not source.read(1) and isinstance(record, dict) else None


# Schemas by registry, id and envelope: a cache, ids never change their meaning. Keyed by the source so that two
# registries in one process stay apart.
_WRITERS: OrderedDict[tuple[str, bool], Writer] = OrderedDict()


def _writer(schema_id: int, schemas: SchemaSource, envelope: bool) -> Writer:
    """Give the writer of a schema id. Raises ValueError when its schema cannot be used at all."""
    text = schemas(schema_id)
    found = _WRITERS.get((text, envelope))
    if found is None:
        found = _WRITERS[(text, envelope)] = _prepare(text, envelope)
        if len(_WRITERS) > _MOST_SCHEMAS:
            _WRITERS.popitem(last=False)
    return found


def _prepare(text: str, envelope: bool) -> Writer:
    try:
        schema = orjson.loads(text)
        parsed = fastavro.parse_schema(bare(schema))
    except Exception:
        raise ValueError("the schema is no Avro schema") from None
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise ValueError("the schema is no record")
    names = [str(f["name"]) for f in schema["fields"]]
    kind = _kind(names) if envelope else None
    wanted = tuple(n for n in _ENVELOPE if n in names) if envelope and kind is None else None
    try:
        reader = Reader(schema, wanted)
    except (ValueError, KeyError, TypeError):
        reader = None
    return Writer(reader, parsed, avro_hints(schema, envelope), avro_columns(schema, envelope), kind)


def _kind(names: list[str]) -> str | None:
    """Tell what records of a schema are when they have no change event's envelope."""
    if {"op", "source", "after"} <= set(names):
        return None
    if {"op", "source", "message"} <= set(names):
        return kinds.MESSAGE
    return kinds.of_shape(names) or kinds.UNKNOWN

"""JSON values to Arrow columns: all of a batch at once, and one by one only near a record that cannot be read.

The vectorised reader is given the values joined by newlines. That each value is read as exactly one record is certain
when every value begins with `{` and ends with `}`, no value holds a NUL byte, and as many records come out as values
went in: a value that ends inside text would meet the newline there (an error), one that ends inside an object or array
would meet the next value's `{` there (an error), so each value gives at least one record, and the count says one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from contracts.model import Contract, Encoding, Envelope, UnknownFields
from udfs import connect_json, envelope_tail, kinds, position, slices
from udfs.converted import Mask
from udfs.decoded import SOURCE, Decoded, Piece, Refusal, unknown_field, wrong_type
from udfs.envelope_tail import Template
from udfs.json_records import Json, NotReadable, parse, shaped, unknown
from udfs.slices import Ints
from udfs.wire import Hints, json_type
from udfs.writer_schemas import Columns

_OPEN, _CLOSE = ord("{"), ord("}")
_LEAF = 32  # records read one by one when their group failed
_PARTS = 16  # groups a failed group is split into
_MOST_BYTES = 1 << 28  # joined at once; Arrow's offsets are 32-bit
_TEMPLATES = 3  # tails tried on a batch
_WORTH_CUTTING = 256  # records with one tail, below which it costs more than it saves
_AFTER_HEAD = b"}"  # closes the object that a record is without its tail
_IMAGES = ("before", "after")
_LENIENT = ("source", "op")  # a broken value there is null, and then told apart by kind


@dataclass(frozen=True)
class Shape:
    """How the records of one contract are read: the wanted fields and their types."""

    schema: pa.Schema
    known: frozenset[str]  # names of the contract's fields in the message
    envelope: bool
    unknown: UnknownFields

    @property
    def exact(self) -> bool:
        """Whether numbers with a fraction may end as decimals or as text, so that no digit may be lost."""
        return not self.envelope or self.unknown in (UnknownFields.KEEP, UnknownFields.ADD)

    @property
    def images(self) -> pa.Schema:
        """The part of the schema that stands before `source`."""
        return pa.schema([f for f in self.schema if f.name in ("before", "after")])

    @classmethod
    def of(cls, contract: Contract) -> Shape:
        """Give the shape of a contract's messages."""
        plain = contract.envelope is Envelope.PLAIN
        named = {n: json_type(f, plain) for f in contract.fields for n in (f.source, *f.aliases)}
        keys = {n for f in contract.key for n in (f.source, *f.aliases)}
        if plain:
            return cls(pa.schema(list(named.items())), frozenset(named), False, contract.unknown_fields)
        # Without full identity only the key of `before` is true: the rest is not even read.
        before = {n: t for n, t in named.items() if contract.full_identity or n in keys}
        schema = pa.schema(
            [
                ("before", pa.struct(list(before.items()))),
                ("after", pa.struct(list(named.items()))),
                ("source", SOURCE),
                ("op", pa.string()),
            ]
        )
        return cls(schema, frozenset(named), True, contract.unknown_fields)


def decode_json(values: pa.BinaryArray, row: Ints, contract: Contract, shape: Shape) -> Decoded:
    """Read values (not null) that stand at the given rows of the raw batch; never raises on any bytes."""
    decoded = Decoded()
    if contract.encoding is Encoding.JSON_SCHEMA:
        for group in connect_json.payloads(values, shape.envelope, decoded.refusals, row):
            _Reader(group.payloads, row[group.index], shape, group.hints, decoded, group.columns).read()
    else:
        _Reader(values, row, shape, {}, decoded).read()
    return decoded


def _narrowed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Give only what the schema names: a reader that looks for unknown fields also infers those of other images."""
    if table.schema.equals(schema):
        return table
    return pa.Table.from_arrays([_declared(_one(table[field.name]), field.type) for field in schema], schema=schema)


def _declared(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    if column.type.equals(wanted) or not pa.types.is_struct(wanted):
        return column
    parts = [_declared(pc.struct_field(column, inner.name), inner.type) for inner in wanted]
    return pa.StructArray.from_arrays(parts, fields=list(wanted), mask=column.is_null())


class _Reader:
    """Reads the values of one schema into pieces."""

    def __init__(  # noqa: PLR0917 (what one schema's values are read with)
        self,
        values: pa.BinaryArray,
        row: Ints,
        shape: Shape,
        hints: Hints,
        into: Decoded,
        written: Columns | None = None,
    ) -> None:
        self.values, self.row, self.shape, self.hints, self.into = values, row, shape, hints, into
        self.written = written
        self.tables: list[tuple[Ints, pa.Table]] = []
        self.extras: dict[int, str] = {}

    def read(self) -> None:
        """Read everything, in batch order."""
        if not len(self.values):
            return
        framed = _framed(self.values)
        whole = np.arange(len(self.values))
        self._group(self._cut(whole if framed.all() else whole[framed]))
        self._singly(whole[~framed])
        if self.tables:
            self._finish()

    def _finish(self) -> None:
        index = np.concatenate([i for i, _ in self.tables])
        if len(self.tables) > 1 and self.shape.envelope:
            self.tables = [(i, _positioned(t)) for i, t in self.tables]
        table = pa.concat_tables([t for _, t in self.tables]) if len(self.tables) > 1 else self.tables[0][1]
        if len(self.tables) > 1 and (np.diff(index) < 0).any():
            order = np.argsort(index)
            index, table = index[order], table.take(order)
        columns = {f.name: _one(table.column(i)) for i, f in enumerate(table.schema)}
        extra = pa.array([self.extras.get(int(i)) for i in index], pa.string()) if self.extras else None
        self.into.pieces.append(Piece(self.row[index], columns, self.hints, True, None, extra, self.written))

    def _cut(self, index: Ints) -> Ints:
        """Read the records whose envelope ends as that of one of them; give the index of the others."""
        for _ in range(_TEMPLATES if self.shape.envelope else 0):
            if len(index) < _WORTH_CUTTING:
                break
            values = self._take(index)
            # A batch may begin with the rest of a snapshot: its middle tells more of it.
            template = Template.of(values[len(values) // 2].as_py())
            cut = template and envelope_tail.cut(values, template)
            if not cut or len(cut.index) < _WORTH_CUTTING:
                break
            read = self._heads(index, cut, np.arange(len(cut.index)), _PARTS)
            index = np.delete(index, cut.index[read])
        return index

    def _heads(self, index: Ints, cut: envelope_tail.Cut, chosen: Ints, parts: int) -> Ints:
        """Read what is left of cut records; give which could be read. Parts that could not are left out."""
        heads = cut.heads.slice(int(chosen[0]), len(chosen))
        images = _read(heads, self.shape.images, self.shape.unknown, _AFTER_HEAD)
        if images is None and parts > 1 and len(chosen) > _LEAF:
            self.into.fallbacks += 1
            read = [self._heads(index, cut, part, 1) for part in np.array_split(chosen, parts)]
            return np.concatenate(read)
        if images is None or self._has_unknown(images):
            return chosen[:0]
        table = images.select(self.shape.images.names)
        for name, column in cut.columns.items():
            table = table.append_column(name, column.slice(int(chosen[0]), len(chosen)))
        self.tables.append((index[cut.index[chosen]], table))
        return chosen

    def _take(self, index: Ints) -> pa.BinaryArray:
        return self.values if len(index) == len(self.values) else self.values.take(pa.array(index))

    def _group(self, index: Ints) -> None:
        """Read records together; split them when that fails."""
        if not len(index):
            return
        table = _read(self._take(index), self.shape.schema, self.shape.unknown)
        if table is None:
            self._split(index)
        elif not self._has_unknown(table):
            self._keep(index, _narrowed(table, self.shape.schema))
        else:
            self._singly(index)

    def _split(self, index: Ints) -> None:
        self.into.fallbacks += 1
        if len(index) <= _LEAF:
            self._singly(index)
            return
        for part in np.array_split(index, _PARTS):
            self._group(part)

    def _keep(self, index: Ints, table: pa.Table) -> None:
        """Keep what was read; records without a known op are looked at again, one by one."""
        if self.shape.envelope:
            known = slices.mask_of(_known_op(_one(table["op"])))
            if not known.all():
                self._singly(index[~known])
                index, table = index[known], table.filter(slices.marks(known))
        if len(index):
            # The reader leaves out what nothing of the batch holds: bring all groups to one schema.
            self.tables.append((index, table))

    def _singly(self, index: Ints) -> None:
        """Read records one by one: they are few, and each must be kept or refused for a reason of its own."""
        records: list[Json] = []
        kept: list[int] = []
        for i in index.tolist():
            try:
                record = self._record(i, self.values[i].as_py())
            except NotReadable as refused:
                self.into.refusals.append(Refusal(int(self.row[i]), refused.stage, refused.rule, refused.reason))
                continue
            if record is not None:
                records.append(record)
                kept.append(i)
        if records:
            self.tables.append((np.array(kept, np.int64), pa.Table.from_pylist(records, schema=self.shape.schema)))

    def _record(self, index: int, value: bytes) -> Json | None:
        """Give one record in the wanted shape, or None when it is counted as something else than a change."""
        try:
            record = parse(value, exact=self.shape.exact)
        except NotReadable:
            return self._last_resort(value)
        if record is None:
            self.into.counted.append((int(self.row[index]), kinds.TOMBSTONE))
            return None
        if self.shape.envelope and record.get("op") not in kinds.CHANGES:
            self.into.counted.append((int(self.row[index]), self._kind(record)))
            return None
        self._note_unknown(index, record)
        # What a row was before an update is asked for its key only, and nobody is refused for it.
        unasked = () if record.get("op") == "d" else _IMAGES[:1]
        whole, wrong = shaped(record, self.shape.schema, _IMAGES if self.shape.envelope else (), _LENIENT, unasked)
        # Such a record is refused, but what else it says can be read: its key above all.
        self.into.refusals += [wrong_type(int(self.row[index]), name) for name in wrong]
        return whole

    def _kind(self, record: dict[str, Json]) -> str:
        if record.get("op") == "m" and isinstance(record.get("message"), dict):
            return kinds.MESSAGE
        kind = kinds.of_shape(record)
        if kind is None and not self.shape.known:
            return kinds.UNKNOWN
        if kind is None:
            raise NotReadable("decode", "no_envelope", "the value is not a Debezium change event")
        return kind

    def _last_resort(self, value: bytes) -> Json:
        """Ask the vectorised reader, which takes bare NaN and Inf: alone, a record must fare as it does in a group."""
        single = pa.array([value], pa.binary())
        table = _read(single, self.shape.schema, self.shape.unknown) if _framed(single).all() else None
        if table is None or (self.shape.envelope and not slices.mask_of(_known_op(_one(table["op"]))).all()):
            raise NotReadable("decode", "undecodable", "the value is not valid JSON, or not a JSON object")
        return table.select(self.shape.schema.names).to_pylist()[0]

    def _note_unknown(self, index: int, record: dict[str, Json]) -> None:
        if self.shape.unknown is UnknownFields.IGNORE:
            return
        image = record.get("after") if self.shape.envelope else record
        rest = unknown(image, self.shape.known) if isinstance(image, dict) else None
        if rest is None:
            return
        if self.shape.unknown is UnknownFields.QUARANTINE:
            self.into.refusals.append(unknown_field(int(self.row[index])))
        else:
            self.extras[index] = rest

    def _has_unknown(self, table: pa.Table) -> bool:
        if self.shape.unknown is UnknownFields.IGNORE:
            return False
        names: Collection[str] = table.schema.names
        if self.shape.envelope:
            names = [f.name for f in table.schema.field("after").type]
        return not self.shape.known.issuperset(names)


def _framed(values: pa.BinaryArray) -> Mask:
    """Tell which values begin with `{`, end with `}` and hold no NUL byte."""
    bounds, held = slices.offsets(values), slices.data(values)
    lengths = np.diff(bounds)
    if not len(held):
        return np.zeros(len(values), np.bool_)
    first = held[np.minimum(bounds[:-1], len(held) - 1)]
    last = held[np.maximum(bounds[1:] - 1, 0)]
    framed = (lengths >= 2) & (first == _OPEN) & (last == _CLOSE)
    used = held[bounds[0] : bounds[-1]]
    nul = np.flatnonzero(used == 0) if not used.all() else ()
    if len(nul):
        framed[np.searchsorted(bounds, nul + bounds[0], side="right") - 1] = False
    return np.asarray(framed, np.bool_)


def _read(values: pa.BinaryArray, schema: pa.Schema, unknown: UnknownFields, after: bytes = b"") -> pa.Table | None:
    """Read values together, each followed by `after`; None when not each is exactly one record of the wanted types.

    Together with `after` they must be framed.
    """
    bounds = slices.offsets(values)
    if int(bounds[-1] - bounds[0]) + 2 * len(values) > _MOST_BYTES:
        return None
    text = slices.joined(values, after)
    other = "ignore" if unknown is UnknownFields.IGNORE else "infer"
    try:
        _whole_text(text).validate(full=True)
        table = pj.read_json(
            pa.BufferReader(text),
            read_options=pj.ReadOptions(use_threads=False, block_size=text.size + 1),
            parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior=other),
        )
    except (pa.ArrowException, ValueError):
        return None
    return table if len(table) == len(values) else None


def _whole_text(text: pa.Buffer) -> pa.StringArray:
    """Give all bytes as one text: the reader does not check that they are UTF-8, validating this value does."""
    return pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, text.size], np.int32)), text)


def _positioned(table: pa.Table) -> pa.Table:
    """Give a table whose `source` holds the position as numbers, as that of a cut record does."""
    place = table.schema.get_field_index("source")
    if table.schema.field(place).type == envelope_tail.CUT_SOURCE:
        return table
    source = _one(table.column(place))
    held = dict(zip((f.name for f in source.type), source.flatten(), strict=True))
    where = position.of_source(held)
    held |= {"major": where.major, "minor": where.minor}
    fields = list(envelope_tail.CUT_SOURCE)
    return table.set_column(place, "source", pa.StructArray.from_arrays([held[f.name] for f in fields], fields=fields))


def _known_op(op: pa.StringArray) -> pa.BooleanArray:
    return pa.compute.is_in(op, value_set=_OPS)


_OPS = pa.array(kinds.CHANGES, pa.string())


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()

"""Raw records of one stream to normalised change events, refused records, and the kind of every record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.model import Contract, Encoding, Unrepresentable
from udfs import kinds, slices
from udfs.changes import Changes, Normalised, Rejects, SchemaSource
from udfs.converted import NOT_SENT
from udfs.decode_avro import decode_avro
from udfs.decode_json import decode_json
from udfs.decoded import Decoded, Piece, Refusal
from udfs.expressions import KEY_ONLY
from udfs.glimpses import glimpses, signs
from udfs.kinds import Kinds
from udfs.plans import Plan, plan_of
from udfs.rows import Rows, rows_of
from udfs.slices import Ints


def normalise(records: pa.Table, contract: Contract, schemas: SchemaSource, now_ms: int) -> Normalised:
    """Give the change events among the raw records (columns: RECORDS) of one contract's topics.

    Every record is a row of the changes, or refused, or only counted: the kinds say which. `now_ms` becomes
    _ingested_at. Raises RegistryUnavailable, as `schemas` does, when a schema cannot be had now.
    """
    records = records.combine_chunks()
    plan = plan_of(contract)
    told = Kinds(len(records))
    decoded = _decode(_column(records, "value"), plan, schemas, told)
    _note_canaries(records, told)
    parts = [rows_of(piece, records, plan, schemas, now_ms) for piece in decoded.pieces]
    refusals = _but_of_deletes([*decoded.refusals, *_refusals(parts, contract)], parts, contract)
    told.set([r.row for r in refusals], kinds.REJECTED)
    for kind, group in groupby(sorted(decoded.counted, key=lambda c: c[1]), key=lambda c: c[1]):
        told.set([row for row, _ in group], kind)
    readable = _readable(parts, plan)
    changes = _accepted(readable, refusals)
    if not contract.fields and len(changes):
        told.set(slices.ints(changes.row), kinds.SIGNAL)
        changes = changes.where(slices.marks(np.zeros(len(changes), np.bool_)))
    shown = [one for piece, part in _pairs(decoded, parts) for one in glimpses(piece, part.table, records)]
    hints = [one for piece, part in _pairs(decoded, parts) for one in signs(piece, part.table, records, contract)]
    beside = (decoded.fallbacks, tuple(shown), tuple(hints))
    return Normalised(changes, _rejects(refusals), told.array(), readable, *beside)


def _pairs(decoded: Decoded, parts: Sequence[Rows]) -> Iterator[tuple[Piece, Rows]]:
    return zip(decoded.pieces, parts, strict=True)


def _decode(values: pa.BinaryArray, plan: Plan, schemas: SchemaSource, told: Kinds) -> Decoded:
    row = np.arange(len(values))
    if values.null_count:
        held = slices.valid(values)
        told.set(row[~held], kinds.TOMBSTONE)
        values, row = values.drop_null(), row[held]
    if not len(values):
        return Decoded()
    if plan.contract.encoding is Encoding.AVRO:
        return decode_avro(values, row, plan.contract, schemas)
    return decode_json(values, row, plan.contract, plan.shape)


def _note_canaries(records: pa.Table, told: Kinds) -> None:
    """Tell canaries from the tombstones that they look like."""
    values = _column(records, "value")
    if values.null_count:
        rows = np.flatnonzero(~slices.valid(values))
        keys = _column(records, "key").take(pa.array(rows))
        told.set(rows[slices.mask_of(pc.starts_with(keys, pattern=kinds.CANARY_KEY))], kinds.CANARY)


def _refusals(parts: Sequence[Rows], contract: Contract) -> list[Refusal]:
    """Give the rows that hold a value of another type than declared, or one the contract does not let pass as null."""
    refusals = list(_found(parts))
    if contract.unrepresentable is Unrepresentable.QUARANTINE:
        for part in parts:
            for name, flags in part.flags.items():
                reason = f"a value in {name} cannot be stored"
                bad = np.flatnonzero(slices.mask_of(pc.not_equal(flags, NOT_SENT)))
                refusals += [Refusal(int(part.row[i]), "normalise", f"unrepresentable:{name}", reason) for i in bad]
    return refusals


def _but_of_deletes(refusals: Sequence[Refusal], parts: Sequence[Rows], contract: Contract) -> list[Refusal]:
    """Leave out what is wrong with a delete, or a truncate, beside its key: nothing else may keep a deleted row."""
    if not refusals:
        return []
    gone = set(_rows_of(parts, KEY_ONLY).tolist())
    keys = {name for field in contract.key for name in (field.name, field.source, *field.aliases)}
    return [r for r in refusals if r.row not in gone or r.stage == "decode" or r.rule.partition(":")[2] in keys]


def _rows_of(parts: Sequence[Rows], ops: pa.Array) -> Ints:
    """Give the raw rows that have one of some ops."""
    found = [part.row[slices.mask_of(pc.is_in(_column(part.table, "_op"), value_set=ops))] for part in parts]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _found(parts: Sequence[Rows]) -> Sequence[Refusal]:
    return [refusal for part in parts for refusal in part.refusals]


def _readable(parts: Sequence[Rows], plan: Plan) -> Changes:
    """Put the rows of all pieces together, in batch order."""
    if not parts:
        return Changes(plan.schema.empty_table(), pa.array([], pa.int64()))
    row = np.concatenate([part.row for part in parts])
    table = pa.concat_tables([part.table for part in parts])
    names = {name for part in parts for name in part.unset}
    flagged = {name for part in parts for name in part.flags}
    changes = Changes(
        table,
        pa.array(row),
        {name: slices.marks(np.concatenate([_unset(part, name) for part in parts])) for name in sorted(names)},
        {name: pa.concat_arrays([_flags(part, name) for part in parts]) for name in sorted(flagged)},
    )
    return _ordered(changes, row) if len(parts) > 1 else changes


def _accepted(readable: Changes, refusals: Sequence[Refusal]) -> Changes:
    bad = np.array(sorted({r.row for r in refusals}), np.int64)
    if not len(bad):
        return readable
    return readable.where(slices.marks(~np.isin(slices.ints(readable.row), bad)))


def _ordered(changes: Changes, row: Ints) -> Changes:
    order = pa.array(np.argsort(row, kind="stable"))
    return Changes(
        changes.table.take(order).combine_chunks(),
        changes.row.take(order),
        {name: mask.take(order) for name, mask in changes.unset.items()},
        {name: flags.take(order) for name, flags in changes.flags.items()},
    )


def _unset(part: Rows, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    found = part.unset.get(name)
    return np.zeros(len(part.row), np.bool_) if found is None else found


def _flags(part: Rows, name: str) -> pa.StringArray:
    found = part.flags.get(name)
    return pa.nulls(len(part.row), pa.string()) if found is None else found


def _rejects(refusals: Sequence[Refusal]) -> tuple[Rejects, ...]:
    """Give one Rejects per stage, one entry per record with all its rules; refused records are few."""
    rejects = []
    for stage in sorted({r.stage for r in refusals}):
        rows: dict[int, list[Refusal]] = {}
        for refusal in refusals:
            if refusal.stage == stage:
                rows.setdefault(refusal.row, []).append(refusal)
        ordered = sorted(rows.items())
        rules = [list(dict.fromkeys(r.rule for r in found)) for _, found in ordered]
        reasons = ["; ".join(dict.fromkeys(r.reason for r in found)) for _, found in ordered]
        rejects.append(Rejects.of(stage, [row for row, _ in ordered], rules, reasons))
    return tuple(rejects)


def _column(records: pa.Table, name: str) -> pa.Array:
    column = records[name]
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()

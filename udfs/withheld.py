"""Withheld changes: those that are no rows of <stream>_changes, though the tables of keys must know of them.

A change that the row filter left out may end a key's row; one that a rule dropped or quarantined makes it stale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from contracts.columns import WITHHELD_META, withheld_schema
from contracts.model import Contract
from udfs import slices
from udfs.arrays import flat
from udfs.canonical import canonical_text
from udfs.changes import Changes, Normalised, Rejects
from udfs.compiled import Compiled
from udfs.converted import Mask
from udfs.fpe import enough_digits
from udfs.keys import KeyRing
from udfs.masks import mask

NOTHING = WITHHELD_META.empty_table()  # also where a contract keeps no such table: it has no key columns
_BESIDE = ("_kind", "_unset")
KINDS = pa.array(["filtered", "dropped", "rejected"])

_schema: Compiled[pa.Schema] = Compiled(withheld_schema)


def withheld_rows(  # noqa: PLR0917 (the seam of refine)
    normalised: Normalised,
    filtered: pa.Array,
    dropped: pa.Table,
    rejects: Sequence[Rejects],
    contract: Contract,
    keys: KeyRing,
) -> pa.Table:
    """Give one row (withheld_schema) per readable change that the filter or a rule left out or that is rejected.

    `filtered` and the column `row` of `dropped` are indexes in the raw batch, as those of the rejects are. Only changes
    with a whole key are given, in batch order; none when the contract keeps no table of keys. Raises KeyFault when the
    key of a mask is missing.
    """
    groups = (filtered, flat(dropped["row"]), *(one.row for one in rejects))
    if not contract.keeps_state or not contract.key or not any(map(len, groups)):
        return NOTHING
    readable = normalised.readable
    told = np.full(len(normalised.kinds), -1, np.int8)
    for kind, group in zip((0, 1, *(2 for _ in rejects)), groups, strict=True):
        told[slices.ints(group)] = kind
    told = told[slices.ints(readable.row)]
    kept = np.flatnonzero((told >= 0) & _whole(readable, contract))
    if not len(kept):
        return NOTHING
    schema = _schema(contract)
    wanted = readable.table.select([name for name in schema.names if name not in _BESIDE])
    chosen = Changes(wanted.take(pa.array(kept)), readable.row.take(pa.array(kept)))
    table = mask(chosen, contract, keys).table.append_column("_kind", KINDS.take(pa.array(told[kept])))
    table = table.append_column("_unset", _unset(readable, kept))
    return table.select(schema.names).cast(schema)


def _unset(readable: Changes, kept: slices.Ints) -> pa.Array:
    """Give the columns that each of some rows does not say; withheld changes are few."""
    marks = {name: flags.take(pa.array(kept)).to_pylist() for name, flags in readable.unset.items()}
    lists = [[name for name, flags in marks.items() if flags[row]] or None for row in range(len(kept))]
    return pa.array(lists, pa.list_(pa.string()))


def _whole(changes: Changes, contract: Contract) -> Mask:
    """Mark the rows whose key names one row of the source, and still does under its mask."""
    whole = np.ones(len(changes), np.bool_)
    for field in contract.key:
        values = flat(changes.table[field.name])
        whole &= slices.valid(values)
        if field.mask is not None and field.mask.kind == "fpe_digits":
            whole &= slices.mask_of(enough_digits(canonical_text(values)))
    return whole

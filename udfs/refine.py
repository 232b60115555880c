"""Refine: one stream's raw records become accepted rows, quarantine rows and counted records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from contracts.columns import OTHERS, WITHHELD_META, refined_schema
from contracts.model import Contract
from udfs.changes import Changes, Normalised, SchemaSource
from udfs.compiled import Compiled
from udfs.expressions import derive, keep_matching
from udfs.glimpses import Glimpse, Sign
from udfs.keys import KeyRing
from udfs.masks import mask
from udfs.normalise import normalise
from udfs.quarantine import quarantine_rows
from udfs.rules import Failure, check
from udfs.withheld import withheld_rows

_schema: Compiled[pa.Schema] = Compiled(refined_schema)
STORED_KINDS = pa.array(["data", "rejected"])


@dataclass(frozen=True)
class Refined:
    """What one batch says about one stream; `failed` names the record for which the stream must stop."""

    rows: pa.Table  # contracts.columns.refined_schema
    rejects: pa.Table  # contracts.columns.QUARANTINE
    others: pa.Table  # contracts.columns.OTHERS
    fallbacks: int
    failed: Failure | None = None
    # contracts.columns.withheld_schema; without the key's columns when empty
    withheld: pa.Table = field(default_factory=WITHHELD_META.empty_table)
    glimpses: tuple[Glimpse, ...] = ()  # what the messages show of the source's columns
    signs: tuple[Sign, ...] = ()

    def counts(self) -> Mapping[str, int]:
        """Give how many records were applied, and how many were rejected or only counted, by rule and kind."""
        counted = Counter({f"kind.{kind}": n for kind, n in _tally(self.others["_kind"])})
        for rules in self.rejects["_rules"].to_pylist():  # rejects are few
            counted.update(f"rejected.{rule}" for rule in rules)
        counted["applied"] = len(self.rows)
        counted["quarantined"] = len(self.rejects)
        return counted


def refine(records: pa.Table, contract: Contract, schemas: SchemaSource, keys: KeyRing, now_ms: int) -> Refined:
    """Decode, normalise, filter, derive, check and mask the records of one stream (columns: RECORDS).

    Nothing private leaves this function unmasked. Raises RegistryUnavailable when a schema cannot be had now.
    """
    normalised = normalise(records, contract, schemas, now_ms)
    matching, filtered = keep_matching(normalised.changes, contract)
    derived, underivable = derive(matching, contract)
    checked = check(derived, contract, now_ms)
    rejects = [r for r in (*normalised.rejects, underivable, checked.rejects) if r is not None and len(r)]
    masked = mask(checked.changes, contract, keys)
    return Refined(
        rows=_rows(masked, contract),
        rejects=quarantine_rows(records, rejects, normalised.readable, contract, keys, now_ms),
        others=_others(records, normalised, filtered, checked.dropped),
        fallbacks=normalised.fallbacks,
        failed=checked.failed,
        withheld=withheld_rows(normalised, filtered, checked.dropped, rejects, contract, keys),
        glimpses=normalised.glimpses,
        signs=normalised.signs,
    )


def _rows(changes: Changes, contract: Contract) -> pa.Table:
    """Bring masked changes into the shape of a section's rows."""
    beside = {
        "_unset": _names(changes.unset, len(changes)),
        "_flags": _reasons(changes.flags, len(changes)),
        "_violations": _names(changes.violations, len(changes)),
    }
    schema = _schema(contract)
    columns = [beside[f.name] if f.name in beside else changes.table[f.name] for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _names(marked: Mapping[str, pa.BooleanArray], length: int) -> pa.Array:
    """Give per row the list of names marked true, null where there are none."""
    labels = {name: pc.if_else(flags, name, pa.scalar(None, pa.string())) for name, flags in marked.items()}
    return _lists(labels, length)


def _reasons(flags: Mapping[str, pa.StringArray], length: int) -> pa.Array:
    """Give per row the list of "column:reason", null where there are none."""
    return _lists({n: pc.binary_join_element_wise(f"{n}:", reasons, "") for n, reasons in flags.items()}, length)


def _lists(labels: Mapping[str, pa.Array], length: int) -> pa.Array:
    if not labels:
        return pa.nulls(length, pa.list_(pa.string()))
    # Not null_handling="skip": Arrow 16 then leaves out the rows in which all are null.
    ended = [pc.binary_join_element_wise(texts, "\n", "") for texts in labels.values()]
    joined = pc.utf8_rtrim(pc.binary_join_element_wise(*ended, "", null_handling="replace"), "\n")
    return pc.split_pattern(pc.if_else(pc.equal(joined, ""), pa.scalar(None, pa.string()), joined), "\n")


def _others(records: pa.Table, normalised: Normalised, filtered: pa.Array, dropped: pa.Table) -> pa.Table:
    """Give the records that reach no table, with their kind."""
    kinds = normalised.kinds
    plain = pc.invert(pc.is_in(kinds, value_set=STORED_KINDS))
    parts = [_coordinates(records.filter(plain), kinds.filter(plain))] if pc.any(plain).as_py() else []
    if len(filtered):
        parts.append(_coordinates(records.take(filtered), pa.array(["filtered"] * len(filtered))))
    if len(dropped):
        parts.append(
            _coordinates(records.take(dropped["row"]), pc.binary_join_element_wise("dropped", dropped["rule"], ":"))
        )
    if len(parts) < 2:
        return parts[0] if parts else OTHERS.empty_table()
    return pa.concat_tables(parts).sort_by([(f.name, "ascending") for f in OTHERS][:3])


def _coordinates(records: pa.Table, kinds: pa.Array | pa.ChunkedArray) -> pa.Table:
    return pa.Table.from_arrays(
        [records["topic"], records["partition"], records["offset"], kinds.cast(pa.string())], schema=OTHERS
    )


def _tally(column: pa.ChunkedArray) -> Sequence[tuple[str, int]]:
    counted = pc.value_counts(column)
    return [(entry["values"], entry["counts"]) for entry in counted.to_pylist()]

"""Checks the contract's SQL: the row filter, derived columns and expression rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from contracts.columns import REFINED_META
from contracts.expressions import bind, fits
from contracts.faults import Faults, Place
from contracts.fields import Columns, may_be_unset
from contracts.model import Contract, Envelope
from contracts.odcs import Settings
from contracts.quality import Rules

# Tidegate's own columns that expressions may read: known for every row, and the same in a replay.
META = {
    name: REFINED_META.field(name).type
    for name in ("_op", "_event_time", "_source_time", "_snapshot", "_topic", "_partition", "_offset", "_kafka_time")
}


def check_expressions(contract: Contract, columns: Columns, rules: Rules, settings: Settings, faults: Faults) -> None:
    """Note every expression that does not parse, bind, or fit what it is for."""
    if columns.untyped:
        return  # DuckDB would call a column unknown whose type is what is wrong
    own = {field.name: field.type.arrow for field in contract.fields}
    if contract.row_filter is not None:
        place = settings["rowFilter"].place
        reads = _check(contract.row_filter, {**META, **own}, pa.bool_(), place, faults)
        _check_sent(reads, contract, columns, place, faults)
    hidden = {field.name for field in contract.fields if field.private}
    for derived in contract.derived:
        place = (*columns.places[derived.name], "transformLogic")
        reads = _check(derived.expression, {**META, **own}, derived.type.arrow, place, faults)
        _check_sent(reads, contract, columns, place, faults)
        for name in sorted(hidden & set(reads)):
            if derived.mask is None:
                remedy = "Give the derived column a `mask` too"
                faults.add(place, f"{derived.name!r} reads the private column {name!r} and has no mask", remedy)
    whole = {**own, **{derived.name: derived.type.arrow for derived in contract.derived}}
    for rule, place in zip(rules.rules, rules.places, strict=True):
        if rule.kind == "expression":
            _check(rule.arguments["sql"], {**META, **whole}, pa.bool_(), place, faults)


def _check(
    sql: str, known: Mapping[str, pa.DataType], wanted: pa.DataType, place: Place, faults: Faults
) -> Iterable[str]:
    try:
        found = bind(sql, known)
    except ValueError as error:
        faults.add(place, f"the SQL cannot be used: {error}", "Write one DuckDB expression over the contract's columns")
        return ()
    if not fits(found.gives, wanted):
        faults.add(place, f"the SQL gives {found.gives}, not {wanted}", "Add a CAST, or declare the other type")
    return found.reads


def _check_sent(reads: Iterable[str], contract: Contract, columns: Columns, place: Place, faults: Faults) -> None:
    """Note columns whose value an update may leave out: what is not known can decide nothing."""
    if contract.envelope is Envelope.PLAIN:
        return
    by_name = {field.name: field for field in contract.fields}
    for name in sorted(set(reads) & set(by_name)):
        if by_name[name].generated:
            remedy = "Write out what the source computes"
            faults.add(place, f"the SQL reads {name!r}, a generated column, which is in no streamed change", remedy)
        elif may_be_unset(by_name[name], contract.full_identity, columns.settings[name]):
            message = f"the SQL reads {name!r}, whose unchanged value PostgreSQL may leave out of an update (TOAST)"
            remedy = "Set REPLICA IDENTITY FULL and `identity: full`, or STORAGE PLAIN and `plainStorage: true`"
            faults.add(place, message, remedy)

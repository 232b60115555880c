"""The contract's row filter and derived columns.

What a row does not say decides nothing. A delete that holds its key only passes the filter and derives nothing, and so
does a truncate; a row with an unset column among those an expression reads passes the filter, and what would be derived
from it is unset too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from contracts.model import Contract
from udfs.arrays import any_true, flat, spread
from udfs.changes import META, Changes, Rejects
from udfs.compiled import Compiled
from udfs.findings import rejected, union
from udfs.sandbox import Evaluated, Expression, evaluate

UNDECIDED = "filter:undecided"  # the violation of a row for which the filter cannot be evaluated; udfs.rules rejects it
NO_ROWS = pa.array([], pa.int64())
KEY_ONLY = pa.array(["d", "t"])
NOTHING = pa.array(["t"])


@dataclass(frozen=True)
class _Plan:
    filter: Expression | None
    derived: tuple[Expression, ...]


def _plan(contract: Contract) -> _Plan:
    columns = row_types(contract)
    row_filter = contract.row_filter
    return _Plan(
        None if row_filter is None else Expression.of(row_filter, pa.bool_(), columns),
        tuple(Expression.of(d.expression, d.type.arrow, columns) for d in contract.derived),
    )


_planned: Compiled[_Plan] = Compiled(_plan)


def row_types(contract: Contract) -> dict[str, pa.DataType]:
    """Give the columns that an expression may read: Tidegate's own and the contract's fields."""
    return {f.name: f.type for f in META} | {f.name: f.type.arrow for f in contract.fields}


def keep_matching(changes: Changes, contract: Contract) -> tuple[Changes, pa.Array]:
    """Keep the rows for which the contract's filter is true; gives the raw rows of the others too (int64).

    A row for which the filter cannot be evaluated is kept with the violation UNDECIDED, a delete without.
    """
    expression = _planned(contract).filter
    if expression is None or not len(changes):
        return changes, NO_ROWS
    says_nothing = NOTHING if contract.full_identity else KEY_ONLY
    decided = _known(changes, says_nothing, expression)
    found = _evaluated([expression], changes, decided)[0]
    matching = _true(found.values)
    if found.failed is not None:
        matching = pc.or_(matching, found.failed)
        undecided = pc.and_not(found.failed, pc.is_in(flat(changes.table["_op"]), value_set=KEY_ONLY))
        changes = replace(changes, violations={**changes.violations, UNDECIDED: undecided})
    if decided is not None:
        matching = pc.or_(matching, pc.invert(decided))
    if matching.true_count == len(changes):
        return changes, NO_ROWS
    return changes.where(matching), changes.row.filter(pc.invert(matching))


def derive(changes: Changes, contract: Contract) -> tuple[Changes, Rejects | None]:
    """Add the contract's derived columns after its fields; rows for which one cannot be computed are rejected."""
    expressions = _planned(contract).derived
    if not expressions:
        return changes, None
    speaking = _known(changes, KEY_ONLY)
    found = _evaluated(expressions, changes, speaking)
    unset = dict(changes.unset)
    columns, failures = {}, {}
    for derived, expression, one in zip(contract.derived, expressions, found, strict=True):
        values, failed = one.values, one.failed
        unknown = _unset(changes, expression)
        if unknown is not None:
            values = pc.if_else(unknown, pa.scalar(None, values.type), values)
            failed = failed and pc.and_not(failed, unknown)
            unset[derived.name] = unknown
        columns[derived.name] = values
        if failed is not None and any_true(failed):
            failures[f"derive:{derived.name}"] = failed
    complete = replace(changes, table=_with(changes.table, contract, columns), unset=unset)
    if not failures:
        return complete, None
    refused = union(failures, len(changes))
    reasons = {rule: f"the column {rule.removeprefix('derive:')} cannot be derived from this row" for rule in failures}
    return complete.where(pc.invert(refused)), rejected("check", refused, changes.row, failures, reasons)


def _with(table: pa.Table, contract: Contract, derived: dict[str, pa.Array]) -> pa.Table:
    fields = len(contract.fields)
    names, columns = table.column_names, table.columns
    return pa.Table.from_arrays(
        [*columns[:fields], *derived.values(), *columns[fields:]], [*names[:fields], *derived, *names[fields:]]
    )


def _evaluated(expressions: tuple[Expression, ...] | list[Expression], changes: Changes,
               decided: pa.BooleanArray | None) -> list[Evaluated]:  # fmt: skip
    """Evaluate on the decided rows (None: all); the others' values are null."""
    if decided is None:
        return evaluate(expressions, changes.table)
    found = evaluate(expressions, changes.table.filter(decided))
    return [
        Evaluated(spread(one.values, decided), None if one.failed is None else _true(spread(one.failed, decided)))
        for one in found
    ]


def _known(changes: Changes, says_nothing: pa.Array, *expressions: Expression) -> pa.BooleanArray | None:
    """Mark the rows that say all that the expressions read; None when all do."""
    silent = pc.is_in(flat(changes.table["_op"]), value_set=says_nothing)
    for expression in expressions:
        unknown = _unset(changes, expression)
        silent = silent if unknown is None else pc.or_(silent, unknown)
    return pc.invert(silent) if any_true(silent) else None


def _unset(changes: Changes, expression: Expression) -> pa.BooleanArray | None:
    """Mark the rows that lack a column the expression reads; None when none does."""
    marks = {name: changes.unset[name] for name in expression.reads if name in changes.unset}
    return union(marks, len(changes)) if marks else None


def _true(values: pa.BooleanArray) -> pa.BooleanArray:
    return pc.fill_null(values, False) if values.null_count else values

"""The kinds of table a stream can keep, in the order they are committed. The last one kept is the stream's anchor."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial

from contracts.aggregates import late_kept
from contracts.model import Aggregate, Contract, Over
from lakehouse import changes, quarantine
from lakehouse.aggregates.columns import aggregate_schema
from lakehouse.aggregates.table import LATE
from lakehouse.kind import TableKind
from lakehouse.state.columns import current_schema, history_schema, memory_schema

# The memory of deletes goes before the tables that ask it, so that no crash makes them forget a delete.
MEMORY = TableKind("memory", "", memory_schema, folder="_tidegate/memory/")
HISTORY = TableKind("history", "_history", history_schema)
CURRENT = TableKind("current", "", current_schema)
STATE = (MEMORY, HISTORY, CURRENT)
KINDS: tuple[TableKind, ...] = (quarantine.KIND, changes.KIND, *STATE)  # whatever aggregates there are


def aggregate_kind(aggregate: Aggregate) -> TableKind:
    """Give the kind of the table of one aggregate."""
    name, columns = aggregate.name, partial(aggregate_schema, aggregate=aggregate)
    definition = json.dumps({key: value for key, value in asdict(aggregate).items() if key != "name"}, sort_keys=True)
    return TableKind(f"aggregate:{name}", f"_{name}", columns, partitioned=False, definition=definition)


def other_kinds(contract: Contract) -> tuple[TableKind, ...]:
    """Give the kinds that a contract does not keep (it may have kept them before), but for other aggregates."""
    kept = {kind.name for kind in kinds_of(contract)}
    return tuple(kind for kind in (*KINDS, LATE) if kind.name not in kept)


def kinds_of(contract: Contract) -> tuple[TableKind, ...]:
    """Give the kinds that a contract keeps, in the order they are committed; raises ValueError for an unknown one.

    What is aggregated over current follows it, and is none of them (lakehouse.aggregates.following).
    """
    tables = set(contract.tables)
    unknown = tables - {kind.name for kind in KINDS}
    if unknown or not tables:
        known = ", ".join(kind.name for kind in KINDS)
        raise ValueError(f"unknown table kinds {sorted(unknown)}; known are {known}, and a stream keeps at least one")
    kept = {*tables, MEMORY.name} if CURRENT.name in tables else tables
    late = [LATE] if late_kept(contract) else []
    counted = [aggregate_kind(one) for one in contract.aggregates if one.over is Over.CHANGES]
    fixed = [kind for kind in KINDS if kind.name in kept]
    # An aggregate may go, or another one come, with any contract: none of them is ever the anchor.
    place = len(fixed) - sum(kind in STATE for kind in fixed) if CURRENT in fixed else len(fixed) - 1
    return (*fixed[:place], *late, *counted, *fixed[place:])


def following_kinds(contract: Contract) -> tuple[TableKind, ...]:
    """Give the kinds of the tables that follow current."""
    return tuple(aggregate_kind(one) for one in contract.aggregates if one.over is Over.CURRENT)


def tables_kept(contract: Contract) -> tuple[TableKind, ...]:
    """Give the kinds of all tables that a contract's stream has or may have had, but for other aggregates."""
    return (*kinds_of(contract), *following_kinds(contract), *other_kinds(contract))

"""Count a stream's changes again: for tables of aggregates that join a stream which already has progress."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from contracts.model import Contract
from lakehouse.aggregates.lateness import sort_rows
from lakehouse.aggregates.table import AggregateTable, LateTable
from lakehouse.anchor import AnchorState
from lakehouse.progress import Partition


def build(
    contract: Contract,
    changes: Iterable[pa.Table],
    tables: Sequence[AggregateTable],
    late: LateTable,
    progress: Mapping[Partition, int],
    state: AnchorState,
) -> None:
    """Fill tables of aggregates, in place of what they hold, from a stream's changes, as they were judged then.

    changes: all up to the progress, which the tables have afterwards; state: of the stream's anchor there. Nothing else
    may commit to the stream meanwhile. Done again after a crash it gives the same.
    """
    parts = counted(contract, changes, tables, late)
    for table in tables:
        table.open()
        told = AnchorState(state.pipeline, state.stream, version=state.version, commit=uuid.uuid4().hex)
        change = table.replaced_by(parts[table.name], state.watermark_ms)
        table.put(change, progress, told, state.watermark_ms)


def counted(
    contract: Contract, changes: Iterable[pa.Table], tables: Sequence[AggregateTable], late: LateTable
) -> dict[str, pa.Table]:
    """Give the parts of changes by table; <stream>_late has afterwards what is not counted."""
    parts = {table.name: table.measuring.parts_schema.empty_table() for table in tables}
    for rows in changes:
        missed = []
        for table in tables:
            found = sort_rows(table.measuring, rows, contract.event_time.allowed_lateness_ms)
            parts[table.name] = table.measuring.merged([parts[table.name], *table.parts_of(found)])
            missed.append(found.missed)
        late.fill(pa.concat_tables(missed))
    return parts

"""Count a stream's changes again: for tables of aggregates that join a stream which already has progress."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from contracts.model import Contract
from lakehouse.aggregates.lateness import sort_rows
from lakehouse.aggregates.table import AggregateTable, LateTable


def build(
    contract: Contract,
    changes: Iterable[pa.Table],
    tables: Sequence[AggregateTable],
    late: LateTable,
    watermark_ms: int | None,
) -> None:
    """Fill tables of aggregates, in place of what they hold, from all of a stream's changes, as they were judged then.

    Nothing else may commit to the stream meanwhile. Done again after a crash it gives the same. The tables have no
    progress yet afterwards.
    """
    parts = {table.name: table.measuring.parts_schema.empty_table() for table in tables}
    for rows in changes:
        missed = []
        for table in tables:
            found = sort_rows(table.measuring, rows, contract.event_time.allowed_lateness_ms)
            parts[table.name] = table.measuring.merged([parts[table.name], *table.parts_of(found)])
            missed.append(found.missed)
        late.fill(pa.concat_tables(missed))
    for table in tables:
        table.open()
        table.put(table.replaced_by(parts[table.name], watermark_ms), {}, None, watermark_ms)

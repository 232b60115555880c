"""<stream>_quarantine: every rejected record, with stage, rules, reason and Kafka coordinates.

A record that was repaired stays, with the time at which it was (`_resolved_at`).
"""

from __future__ import annotations

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable

from contracts.columns import QUARANTINE
from contracts.model import Contract
from contracts.types import MICROS_UTC
from lakehouse.appending import append
from lakehouse.kind import AppendKind, Batch

RESOLVED_AT = "_resolved_at"
# What only commits can fill: the topic's epoch, and when a repair made something else of the record.
COMMITTED = (pa.field("_epoch", pa.int32()), pa.field(RESOLVED_AT, MICROS_UTC))


def quarantine_schema(contract: Contract) -> pa.Schema:
    """Give the schema of <stream>_quarantine, the same for every contract."""
    return pa.schema([*QUARANTINE, *COMMITTED])


def has_rejects(batch: Batch) -> bool:
    """Whether the batch holds rejected records."""
    return len(batch.rejects) > 0


def append_rejects(table: DeltaTable, batch: Batch, properties: CommitProperties) -> None:
    """Append the rejected records."""
    append(table, batch.rejects, properties)


KIND = AppendKind("quarantine", "_quarantine", quarantine_schema, concerns=has_rejects, apply=append_rejects)

"""<stream>_quarantine: every rejected record, with stage, rules, reason and Kafka coordinates."""

from __future__ import annotations

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable

from contracts.columns import QUARANTINE
from contracts.model import Contract
from lakehouse.appending import append
from lakehouse.kind import Batch, TableKind


def quarantine_schema(contract: Contract) -> pa.Schema:
    """Give the schema of <stream>_quarantine, the same for every contract."""
    return QUARANTINE


def append_rejects(table: DeltaTable, batch: Batch, properties: CommitProperties, anchor: bool) -> bool:
    """Append the rejected records; without any, commit only as the anchor."""
    if not len(batch.rejects) and not anchor:
        return False
    append(table, batch.rejects, properties)
    return True


KIND = TableKind("quarantine", "_quarantine", quarantine_schema, append_rejects)

"""The actions of our own commits, as the Delta log has them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

from lakehouse.merge.log import Action, DataFile
from lakehouse.merge.statistics import loosened
from lakehouse.merge.vectors import Descriptor

ENGINE = "tidegate"


def commit_info(
    operation: str, parameters: Mapping[str, str], read: int | None, metadata: Mapping[str, str] | None = None
) -> Action:
    """Give the commitInfo of a commit on top of version read (None: of a new table); its txnId tells it from others."""
    info: dict[str, Any] = {"timestamp": now_ms(), "operation": operation, "operationParameters": dict(parameters)}
    known = {} if read is None else {"readVersion": read}
    return {"commitInfo": {**info, **known, "engineInfo": ENGINE, "txnId": str(uuid.uuid4()), **(metadata or {})}}


def removed(file: DataFile, *, data_change: bool = True) -> Action:
    """Give the remove action of a live file with the vector that it has."""
    kept = {name: file.add[name] for name in ("path", "partitionValues", "size", "tags") if name in file.add}
    said = {"deletionTimestamp": now_ms(), "dataChange": data_change, "extendedFileMetadata": True}
    vector = {"deletionVector": file.vector.to_action()} if file.vector else {}
    return {"remove": {**kept, **said, **vector}}


def marked(file: DataFile, vector: Descriptor, rows: int) -> Action:
    """Give the add action of a file of so many physical rows with a new vector; everything else stays."""
    stats = loosened(file.add.get("stats"), rows)
    return {"add": {**file.add, "stats": stats, "deletionVector": vector.to_action(), "dataChange": True}}


def now_ms() -> int:
    """Give the time in ms since the epoch."""
    return time.time_ns() // 1_000_000

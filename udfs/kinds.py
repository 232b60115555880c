"""What a record is: a change to keep, or one of the other things that travel on Debezium's topics."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pyarrow as pa

DATA, TOMBSTONE, HEARTBEAT, TRANSACTION, MESSAGE, SIGNAL, UNKNOWN, CANARY, REJECTED = KINDS = (
    "data",  # a row for <stream>_changes
    "tombstone",  # null value: Kafka's own deletion marker
    "heartbeat",
    "transaction",  # BEGIN or END marker
    "message",  # pg_logical_emit_message
    "signal",  # a row of a signal table, on a contract without fields
    "unknown",  # no envelope, on a contract without fields
    "canary",  # sent by `tidegate canary`, to be followed on its way
    "rejected",
)

# A canary has a null value, so that no decoder meets it, and a key that begins so.
CANARY_KEY = b'{"tidegate_canary":'

CHANGES = ("c", "u", "d", "r", "t")  # op of a change event (Debezium: "Change event values")
PLAIN = "e"  # op we give a plain event

_HEARTBEAT = {"ts_ms"}
_TRANSACTION = {"status", "id", "event_count", "data_collections", "ts_ms"}


def of_shape(fields: Collection[str]) -> str | None:
    """Tell the kind of a value without an envelope by its field names; None when they fit no kind."""
    names = set(fields)
    if names == _HEARTBEAT:
        return HEARTBEAT
    return TRANSACTION if {"status", "id"} < names <= _TRANSACTION else None


class Kinds:
    """The kinds of a batch's records, filled in step by step."""

    def __init__(self, count: int) -> None:
        self._codes: npt.NDArray[np.int8] = np.zeros(count, np.int8)

    def set(self, rows: npt.NDArray[np.int64] | list[int], kind: str) -> None:
        """Name the kind of some records."""
        self._codes[rows] = KINDS.index(kind)

    def array(self) -> pa.Array:
        """Give one kind per record, as text."""
        codes = pa.array(self._codes)
        return pa.DictionaryArray.from_arrays(codes, pa.array(KINDS, pa.string())).cast(pa.string())

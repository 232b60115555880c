"""The columns of the tables that know each key's last change: current, history, and the memory of deletes."""

from __future__ import annotations

import pyarrow as pa

from contracts.columns import own_schema
from contracts.model import Contract
from contracts.types import MICROS_UTC

# What a stored row still has to remember; null for most rows.
# older: columns whose value came with an earlier change than the row's last one (or, where `linked`, with the row of
# the key before a key change, and then the position is that of the key change).
OLDER = pa.struct([("column", pa.string()), ("major", pa.int64()), ("minor", pa.int64()), ("linked", pa.bool_())])
MEMO = pa.struct(
    [
        ("stale_major", pa.int64()),  # position of the newest change that waits in quarantine
        ("stale_minor", pa.int64()),
        ("linked_from", pa.string()),  # the key before, as JSON, while a column is linked
        ("older", pa.list_(OLDER)),
        ("begin_major", pa.int64()),  # of a version that later changes said again: where it began
        ("begin_minor", pa.int64()),
        ("said_again_at", pa.int64()),  # when the last of them happened (us)
        ("hidden", pa.list_(pa.string())),  # columns that changes up to the one that waits said, and none since
    ]
)
RANK = [("_order_major", pa.int64()), ("_order_minor", pa.int64())]  # lakehouse.order
PENDING = ("_pending", pa.list_(pa.string()))  # columns whose value has not arrived yet; null: none

CURRENT_META = pa.schema(
    [
        ("_op", pa.string()),  # of the change that made the row what it is
        ("_event_time", MICROS_UTC),
        ("_source_time", MICROS_UTC),
        ("_ingested_at", MICROS_UTC),
        ("_topic", pa.string()),
        ("_partition", pa.int32()),
        ("_offset", pa.int64()),
        ("_previous_key", pa.string()),
        ("_flags", pa.list_(pa.string())),  # "column:reason" of values stored as null; null: none
    ]
)
REST = ""  # stands, in `older`, for all columns that every change sends


def toastable(contract: Contract) -> tuple[str, ...]:
    """Give the columns whose value a change may leave out."""
    if contract.full_identity:
        return ()
    left_out = {f.name for f in contract.kept if f.type.toastable and f.key_position is None}
    return tuple(f.name for f in own_schema(contract) if f.name in left_out or f.name in _derived(contract))


def _derived(contract: Contract) -> set[str]:
    return {derived.name for derived in contract.derived}


def key_names(contract: Contract) -> tuple[str, ...]:
    """Give the names of the key's columns, in key order."""
    return tuple(field.name for field in contract.key)


def current_schema(contract: Contract) -> pa.Schema:
    """Give the schema of <stream>: one row per key."""
    deleted = [("_deleted", pa.bool_())] if contract.state.soft_deletes else []
    return pa.schema(
        [*own_schema(contract), *CURRENT_META, *deleted, ("_stale", pa.bool_()), PENDING, *RANK, ("_memo", MEMO)]
    )


def history_schema(contract: Contract) -> pa.Schema:
    """Give the schema of <stream>_history: one row per version of a key, with the columns whose changes make one."""
    names = {*key_names(contract), *(contract.state.tracked or own_schema(contract).names)}
    own = [field for field in own_schema(contract) if field.name in names]
    validity = [("_valid_from", MICROS_UTC), ("_valid_to", MICROS_UTC), ("_is_current", pa.bool_())]
    return pa.schema([*own, *validity, *CURRENT_META, PENDING, *RANK, ("_memo", MEMO)])


def memory_schema(contract: Contract) -> pa.Schema:
    """Give the schema of the memory of deletes: one row per delete, with what a key change left behind."""
    own = own_schema(contract)
    kept = [own.field(name) for name in (*key_names(contract), *toastable(contract))]
    return pa.schema(
        [
            *kept,
            ("_op", pa.string()),
            ("_time", MICROS_UTC),  # when the source deleted
            ("_recorded_at", MICROS_UTC),
            ("_topic", pa.string()),
            ("_next_key", pa.string()),  # the key that the row went on under
            PENDING,
            *RANK,
            ("_memo", MEMO),
        ]
    )

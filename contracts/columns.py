"""The columns Tidegate adds to a stream's own, and the shapes of what passes between refine and commit.

A section (what one batch says about one stream) holds three Arrow tables, each sorted by topic, partition, offset:
rows (accepted changes), rejects (quarantine rows) and others (records that are counted but stored nowhere).
"""

from __future__ import annotations

import pyarrow as pa

from contracts.model import Contract, Mask
from contracts.types import MICROS_UTC

COORDINATES = [("_topic", pa.string()), ("_partition", pa.int32()), ("_offset", pa.int64())]

# What the Flink source hands to refine, one row a record.
RECORDS = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", pa.int64()),  # ms since the epoch
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("old_key", pa.binary()),  # header __debezium.oldkey
        ("new_key", pa.binary()),  # header __debezium.newkey
    ]
)

# Columns of <stream>_changes that refine fills, after the contract's own.
REFINED_META = pa.schema(
    [
        ("_op", pa.string()),  # c, u, d, r, t; "e" for a plain event
        ("_position_major", pa.int64()),  # PostgreSQL: LSN of the last commit (null in an initial snapshot)
        ("_position_minor", pa.int64()),  # PostgreSQL: LSN of the change
        ("_event_time", MICROS_UTC),
        ("_source_time", MICROS_UTC),  # when the database committed
        ("_tx_id", pa.int64()),
        ("_snapshot", pa.string()),  # first, true, last, incremental, ...; null for a streamed change
        ("_previous_key", pa.string()),  # JSON of the (masked) key this row had before a key change
        ("_next_key", pa.string()),  # JSON of the (masked) key the row has after a key change
        ("_unset", pa.list_(pa.string())),  # columns whose value was not sent (unchanged TOAST); null: none
        ("_flags", pa.list_(pa.string())),  # "column:reason" of values stored as null; null: none
        ("_violations", pa.list_(pa.string())),  # rules broken with action warn; null: none
        ("_extra", pa.string()),  # JSON of fields the contract does not know, when it keeps them
        *COORDINATES,
        ("_kafka_time", MICROS_UTC),
        ("_schema_id", pa.int32()),  # of Confluent-framed values
        ("_ingested_at", MICROS_UTC),  # when refine read the record
    ]
)

# Columns of <stream>_changes that commit fills.
COMMITTED_META = pa.schema(
    [
        ("_late", pa.bool_()),
        ("_lateness_ms", pa.int64()),  # how far behind the stream watermark; 0 when not late
        ("_resent", pa.bool_()),  # the position is not above the partition's highest: the connector sent it again
        ("_epoch", pa.int32()),  # of the topic
    ]
)

# <stream>_quarantine, in full.
QUARANTINE = pa.schema(
    [
        ("_stage", pa.string()),  # decode, normalise, check
        ("_rules", pa.list_(pa.string())),  # every rule broken
        ("_reason", pa.string()),  # never holds a value of the record
        ("_op", pa.string()),
        ("_event_time", MICROS_UTC),
        ("_position_major", pa.int64()),
        ("_position_minor", pa.int64()),
        ("_key", pa.string()),  # JSON of the masked key, where it could be read
        ("_payload", pa.binary()),
        ("_payload_form", pa.string()),  # none, masked, encrypted
        ("_payload_key_id", pa.string()),
        *COORDINATES,
        ("_kafka_time", MICROS_UTC),
        ("_schema_id", pa.int32()),
        ("_ingested_at", MICROS_UTC),
    ]
)

# Records that no table holds, and their kind: tombstone, heartbeat, transaction, message, signal, dropped:<rule>,
# filtered, unknown, canary.
OTHERS = pa.schema([*COORDINATES, ("_kind", pa.string())])


# What a section says, beside a contract's key columns, of changes that no table of changes holds but whose keys the
# state tables must know: those the row filter left out, those a rule dropped, those refused whose key can be read.
WITHHELD_META = pa.schema(
    [
        ("_kind", pa.string()),  # filtered, dropped, rejected
        ("_op", pa.string()),
        ("_position_major", pa.int64()),
        ("_position_minor", pa.int64()),
        ("_event_time", MICROS_UTC),
        ("_source_time", MICROS_UTC),
        ("_snapshot", pa.string()),
        ("_previous_key", pa.string()),
        ("_next_key", pa.string()),
        ("_unset", pa.list_(pa.string())),  # columns whose value was not sent; null: none
        *COORDINATES,
    ]
)


def withheld_schema(contract: Contract) -> pa.Schema:
    """Give the schema of a section's withheld changes: the key columns as stored, then WITHHELD_META."""
    keys = [pa.field(f.name, masked_type(f.type.arrow, f.mask)) for f in contract.key]
    return pa.schema([*keys, *WITHHELD_META])


def masked_type(stored: pa.DataType, mask: Mask | None) -> pa.DataType:
    """Give the type of a column after its mask: text for a mask that makes tokens, the stored type otherwise."""
    if mask is not None and mask.kind in TEXT_MASKS:
        return pa.string()
    return stored


TEXT_MASKS = frozenset({"hash", "email_hash", "tokenise", "encrypt", "keep_first", "keep_last", "fpe_digits"})


def own_schema(contract: Contract) -> pa.Schema:
    """Give the contract's own columns, as stored: kept fields in order, then derived columns."""
    fields = [pa.field(f.name, masked_type(f.type.arrow, f.mask)) for f in contract.kept]
    fields += [pa.field(d.name, masked_type(d.type.arrow, d.mask)) for d in contract.derived if not _dropped(d.mask)]
    return pa.schema(fields)


def refined_schema(contract: Contract) -> pa.Schema:
    """Give the schema of a section's accepted rows."""
    return pa.schema([*own_schema(contract), *REFINED_META])


def changes_schema(contract: Contract) -> pa.Schema:
    """Give the schema of <stream>_changes."""
    return pa.schema([*refined_schema(contract), *COMMITTED_META])


def _dropped(mask: Mask | None) -> bool:
    return mask is not None and mask.kind == "drop"

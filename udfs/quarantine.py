"""Quarantine rows: what is kept of a refused record, without any private value in the clear.

A row that could be read gives its masked key, position and event time, and, under the policy `masked`, its fields as
JSON after their masks (without fields that the contract does not know: nothing says whether they are private). A record
that could not be read gives its Kafka coordinates only, or, under the policy `encrypted`, its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.columns import QUARANTINE
from contracts.model import Contract, Encoding, PayloadPolicy
from contracts.types import MICROS_UTC
from udfs.arrays import flat
from udfs.canonical import json_objects
from udfs.changes import Changes, Rejects
from udfs.keys import KeyRing
from udfs.masks import mask
from udfs.payloads import seal_payloads

NO_ROWS = QUARANTINE.empty_table()
FROM_ROW = ("_op", "_event_time", "_position_major", "_position_minor")
CONFLUENT_HEADER = 5  # bytes: 0, then the schema id


def quarantine_rows(  # noqa: PLR0917 (the seam of refine)
    records: pa.Table,
    rejects: Sequence[Rejects],
    readable: Changes | None,
    contract: Contract,
    keys: KeyRing,
    now_ms: int,
) -> pa.Table:
    """Give one row of QUARANTINE per rejected record and stage, in the order of the records.

    `records` is the raw batch (RECORDS) that the rejects' rows point into, `readable` the unmasked changes of the same
    batch that normalise could read. Raises KeyFault when a key is missing.
    """
    parts = []
    for one in rejects:
        if len(one):
            raw, read = records.take(one.row), _read(one, readable, contract, keys)
            beside = _payload(raw, read["_payload"], contract, keys) | _coordinates(raw, contract, now_ms)
            parts.append(_rows(one, read | beside))
    if len(parts) < 2:
        return parts[0] if parts else NO_ROWS
    places = np.concatenate([one.row.to_numpy(zero_copy_only=False) for one in rejects if len(one)])
    return pa.concat_tables(parts).take(pa.array(np.argsort(places, kind="stable")))


def _rows(rejects: Rejects, columns: Mapping[str, Any]) -> pa.Table:
    judged = {"_stage": pa.repeat(rejects.stage, len(rejects)), "_rules": rejects.rules, "_reason": rejects.reason}
    whole = {**columns, **judged}
    return pa.Table.from_arrays([whole[f.name] for f in QUARANTINE], schema=QUARANTINE)


def _coordinates(raw: pa.Table, contract: Contract, now_ms: int) -> dict[str, Any]:
    return {
        "_topic": raw["topic"],
        "_partition": raw["partition"],
        "_offset": raw["offset"],
        "_kafka_time": pc.multiply(raw["timestamp"], 1000).cast(MICROS_UTC),
        "_schema_id": _schema_ids(flat(raw["value"]), contract),
        "_ingested_at": pa.repeat(pa.scalar(now_ms * 1000), len(raw)).cast(MICROS_UTC),
    }


def _read(rejects: Rejects, readable: Changes | None, contract: Contract, keys: KeyRing) -> dict[str, Any]:
    """Give what the readable rows say, masked: null for records that could not be read."""
    if readable is None or not len(readable):
        return {name: pa.nulls(len(rejects), QUARANTINE.field(name).type) for name in (*FROM_ROW, "_key", "_payload")}
    places = pc.index_in(rejects.row, value_set=readable.row)
    wanted = places.drop_null()
    chosen = Changes(readable.table.take(wanted), readable.row.take(wanted))
    masked = mask(chosen, contract, keys).table
    at = pc.index_in(rejects.row, value_set=chosen.row)
    columns = {name: flat(masked[name]).take(at) for name in FROM_ROW}
    columns["_key"] = _json(masked, [f.name for f in contract.key]).take(at)
    named = [f.name for f in contract.kept] if contract.payload is PayloadPolicy.MASKED else []
    columns["_payload"] = _json(masked, named).cast(pa.binary()).take(at)
    return columns


def _json(table: pa.Table, names: Sequence[str]) -> pa.StringArray:
    """Give the named columns of each row as a JSON object, null when there are no names."""
    if not names:
        return pa.nulls(len(table), pa.string())
    return json_objects(table.select(names))  # rejected rows are few


def _payload(raw: pa.Table, masked: pa.Array, contract: Contract, keys: KeyRing) -> dict[str, Any]:
    """Give the payload's columns as the contract's policy says."""
    policy, key_id = contract.payload, contract.payload_key_id
    none = pa.nulls(len(raw), pa.string())
    if policy is PayloadPolicy.ENCRYPTED and key_id is not None:
        form, label = pa.repeat("encrypted", len(raw)), pa.repeat(key_id, len(raw))
        return {"_payload": seal_payloads(raw, key_id, keys), "_payload_form": form, "_payload_key_id": label}
    form = pc.if_else(masked.is_valid(), "masked", "none")
    return {"_payload": masked, "_payload_form": form, "_payload_key_id": none}


def _schema_ids(values: pa.Array, contract: Contract) -> pa.Array:
    """Give the registry id in front of each value of an Avro stream; null where there is none."""
    if contract.encoding is not Encoding.AVRO:
        return pa.nulls(len(values), pa.int32())
    # Rejected records are few: their five bytes are read one by one.
    heads = [None if v is None else v[:CONFLUENT_HEADER] for v in values.to_pylist()]
    ids = [int.from_bytes(h[1:], "big", signed=True) if h and len(h) == 5 and h[0] == 0 else None for h in heads]
    return pa.array(ids, pa.int32())

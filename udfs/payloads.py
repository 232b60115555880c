"""Encrypted quarantine payloads: the bytes of a record's key and value, for those who hold the key.

The plain form is a byte that says what is there (1 key, 2 value, 3 both), the key's length (4 bytes, big-endian), the
key and the value. It is sealed with XAES-256-GCM and bound to topic, partition and offset, so that a payload cannot be
passed off as another record's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from udfs.ciphers import Sealer
from udfs.keys import KeyRing

PURPOSE = "payload"
HAS_KEY, HAS_VALUE = 1, 2


def seal_payloads(records: pa.Table, key_id: str, keys: KeyRing) -> pa.BinaryArray:
    """Give the sealed bytes of each record (RECORDS); raises KeyFault when the key is missing."""
    columns = [records[name].to_pylist() for name in ("key", "value", "topic", "partition", "offset")]
    rows = list(zip(*columns, strict=True))
    # Rejected records are few, and each has a nonce and a tag of its own.
    plain = [_framed(key, value) for key, value, *_ in rows]
    bound_to = [_bound(*coordinates) for _, _, *coordinates in rows]
    return pa.array(Sealer(keys.subkey(key_id, PURPOSE)).seal(plain, bound_to), pa.binary())


def open_payload(row: Mapping[str, Any], keys: KeyRing) -> tuple[bytes | None, bytes | None]:
    """Give the raw key and value behind a quarantine row (by column name) whose payload is encrypted.

    Raises ValueError for another payload form, KeyFault without the key, Unreadable when the bytes or the
    coordinates were changed.
    """
    if row["_payload_form"] != "encrypted":
        raise ValueError(f"the payload form is {row['_payload_form']!r}: there is nothing to decrypt")
    sealer = Sealer(keys.subkey(row["_payload_key_id"], PURPOSE))
    plain = sealer.open(row["_payload"], _bound(row["_topic"], row["_partition"], row["_offset"]))
    parts, length = plain[0], int.from_bytes(plain[1:5], "big")
    key, value = plain[5 : 5 + length], plain[5 + length :]
    return (key if parts & HAS_KEY else None), (value if parts & HAS_VALUE else None)


def _framed(key: bytes | None, value: bytes | None) -> bytes:
    parts = (HAS_KEY if key is not None else 0) | (HAS_VALUE if value is not None else 0)
    return bytes([parts]) + len(key or b"").to_bytes(4, "big") + (key or b"") + (value or b"")


def _bound(topic: str, partition: int, offset: int) -> bytes:
    return f"{topic}/{partition}/{offset}".encode()

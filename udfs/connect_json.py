"""Kafka Connect's JSON with schema, `{"schema":..,"payload":..}`: payloads cut out, each schema text read once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from udfs import json_records, slices
from udfs.decoded import Refusal
from udfs.slices import Ints
from udfs.wire import Hints
from udfs.writer_schemas import Columns, connect_columns, connect_hints

_SCHEMA = b'{"schema":'
_PAYLOAD = b',"payload":'
_TRIES = 16  # schema texts tried on everything that is left; after that each record's own is cut
_MARKERS = 8  # places looked at for the end of a schema text


@dataclass(frozen=True)
class Group:
    """Payloads written with one schema."""

    index: Ints  # which of the given values they are
    payloads: pa.BinaryArray
    hints: Hints
    columns: Columns


def payloads(values: pa.BinaryArray, envelope: bool, refusals: list[Refusal], row: Ints) -> Iterator[Group]:
    """Give the payloads, grouped by schema; values without one go to `refusals`.

    Connect writes the schema first, so all records of one schema begin with the same bytes, ending in `,"payload":`.
    """
    framed = slices.mask_of(pc.and_(pc.starts_with(values, pattern=_SCHEMA), pc.ends_with(values, pattern=b"}")))
    left, odd = np.flatnonzero(framed), [np.flatnonzero(~framed)]
    for _ in range(_TRIES):
        if not len(left):
            break
        rest = values if len(left) == len(values) else values.take(pa.array(left))
        prefix = _prefix(rest[0].as_py())
        if prefix is None:
            odd.append(left[:1])
            left = left[1:]
            continue
        same = slices.mask_of(_begins(rest, prefix))
        yield _group(left[same], rest if same.all() else rest.filter(slices.marks(same)), prefix, envelope)
        left = left[~same]
    yield from _by_own_prefix(values, left, odd, envelope)
    yield from _others(values, np.sort(np.concatenate(odd)), envelope, refusals, row)


def _group(index: Ints, values: pa.BinaryArray, prefix: bytes, envelope: bool) -> Group:
    return Group(index, slices.inner(values, len(prefix), 1), *_said(prefix, envelope))


def _prefix(value: bytes) -> bytes | None:
    """Give everything up to the payload when the value is in Connect's own form, else None."""
    at = value.find(_PAYLOAD)
    for _ in range(_MARKERS):
        if at < 0:
            return None
        # The marker may also stand inside the schema (a default value): the first one that leaves valid JSON counts.
        if _is_json(value[len(_SCHEMA) : at]):
            return value[: at + len(_PAYLOAD)]
        at = value.find(_PAYLOAD, at + 1)
    return None


def _begins(values: pa.BinaryArray, prefix: bytes) -> pa.BooleanArray:
    """Tell which values begin with a schema and hold a payload after it."""
    long_enough = pc.greater(pc.binary_length(values), len(prefix) + 1)
    return pc.and_(long_enough, pc.starts_with(values, pattern=prefix))


def _by_own_prefix(values: pa.BinaryArray, left: Ints, odd: list[Ints], envelope: bool) -> Iterator[Group]:
    """Group what is left by a dictionary: a batch with very many schemas, or with many broken ones, is rare."""
    groups: dict[bytes, list[int]] = {}
    for i in left.tolist():
        value = values[i].as_py()
        prefix = _prefix(value)
        if prefix is None or len(value) <= len(prefix) + 1:
            odd.append(np.array([i]))
        else:
            groups.setdefault(prefix, []).append(i)
    for prefix, members in groups.items():
        yield _group(np.array(members), values.take(pa.array(members)), prefix, envelope)


def _others(values: pa.BinaryArray, index: Ints, envelope: bool, refusals: list[Refusal], row: Ints) -> Iterator[Group]:
    """Unwrap values that are not in Connect's own form, one by one: another writer's, or no JSON at all."""
    groups: dict[bytes, list[tuple[int, bytes]]] = {}
    for i in index.tolist():
        try:
            orjson.loads(values[i].as_py())  # strict where the exact reader below is not
            record = json.loads(values[i].as_py(), parse_float=Decimal)
            payload = json_records.text(record["payload"]).encode()
            schema = json_records.text(record.get("schema")).encode()
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
            reason = "the value is not a JSON object with a schema and a payload"
            refusals.append(Refusal(int(row[i]), "decode", json_records.UNDECODABLE, reason))
            continue
        groups.setdefault(schema, []).append((i, payload))
    for schema, members in groups.items():
        found = np.array([i for i, _ in members])
        yield Group(found, pa.array([p for _, p in members], pa.binary()), *_said_by(schema, envelope))


@lru_cache(maxsize=1024)
def _said(prefix: bytes, envelope: bool) -> tuple[Hints, Columns]:
    return _said_by(prefix[len(_SCHEMA) : -len(_PAYLOAD)], envelope)


def _said_by(schema: bytes, envelope: bool) -> tuple[Hints, Columns]:
    read = orjson.loads(schema)
    return connect_hints(read, envelope), connect_columns(read, envelope)


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True

"""The Kafka keys of records, as the contract's key columns: for deletes that say nothing else of their row."""

from __future__ import annotations

import dataclasses

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from contracts.model import Contract, Encoding, Envelope, UnknownFields
from udfs import slices, wire
from udfs.arrays import spread
from udfs.canonical import json_objects
from udfs.changes import SchemaSource, UnknownSchema
from udfs.compiled import Compiled
from udfs.decode_avro import decode_avro
from udfs.decode_json import Shape, decode_json
from udfs.decoded import Piece
from udfs.names import adjusted
from udfs.wire import NO_HINT


def read_keys(keys: pa.BinaryArray, contract: Contract, schemas: SchemaSource) -> dict[str, pa.Array]:
    """Give the key columns by field name, as stored, null where a key is missing or cannot be read.

    Keys are written in the values' encoding. Raises RegistryUnavailable, as `schemas` does.
    """
    columns = {f.name: pa.nulls(len(keys), f.type.arrow) for f in contract.key}
    held = slices.valid(keys)
    if not columns or not held.any():
        return columns
    for piece in _pieces(keys.drop_null(), np.flatnonzero(held), _only_key(contract), schemas):
        places = np.full(len(keys), -1, np.int64)
        places[piece.row] = np.arange(len(piece.row))
        for name, values in _columns(piece, contract).items():
            found = values.take(pa.array(places, mask=places < 0))
            columns[name] = (
                found if columns[name].null_count == len(keys) else pa.compute.coalesce(columns[name], found)
            )
    return columns


def header_keys(headers: pa.ChunkedArray, contract: Contract) -> pa.StringArray:
    """Give the keys in Debezium's headers as JSON of the key columns, each value as its column stores it.

    Headers are JSON in every encoding of the values. Null where there is none, or none that can be read.
    """
    found = pc.is_valid(headers).combine_chunks()
    if not contract.key or not found.true_count:
        return pa.nulls(len(headers), pa.string())
    # Key changes are rare: their headers are looked at one by one.
    keys = pa.array([_payload(header) for header in headers.drop_null().to_pylist()], pa.binary())
    columns = read_keys(keys, _written_in_json(contract), _no_schemas)
    texts = json_objects(pa.table([columns[f.name] for f in contract.key], [f.name for f in contract.key]))
    return spread(pc.if_else(keys.is_valid(), texts, pa.scalar(None, pa.string())), found)


def _payload(header: bytes) -> bytes | None:
    """Give the key itself of one that is written with its schema; None when the header holds no key."""
    try:
        key = orjson.loads(header)
    except ValueError:
        return None
    if isinstance(key, dict) and set(key) == {"schema", "payload"}:
        key = key["payload"]
    return orjson.dumps(key) if isinstance(key, dict) else None


def _pieces(keys: pa.BinaryArray, row: slices.Ints, only: Contract, schemas: SchemaSource) -> list[Piece]:
    if only.encoding is Encoding.AVRO:
        return decode_avro(keys, row, only, schemas).pieces
    names = {n: wire.json_type(f, False) for f in only.fields for n in (f.source, *f.aliases)}
    shape = Shape(pa.schema(list(names.items())), frozenset(names), False, UnknownFields.IGNORE)
    return decode_json(keys, row, only, shape).pieces


def _columns(piece: Piece, contract: Contract) -> dict[str, pa.Array]:
    read = {}
    for field in contract.key:
        names = (field.source, *field.aliases)
        for name in (*names, *map(adjusted, names)):
            if name in piece.columns:
                how = wire.reading(field, piece.hints.get(name, NO_HINT), False, piece.in_json)
                read[field.name] = wire.read(piece.columns[name], how).values
                break
    return read


def _no_schemas(schema_id: int) -> str:
    raise UnknownSchema(schema_id)


_written_in_json: Compiled[Contract] = Compiled(lambda contract: dataclasses.replace(contract, encoding=Encoding.JSON))


def _only_the_key(contract: Contract) -> Contract:
    """Give the key part of a contract, as that of records of their own."""
    return dataclasses.replace(
        contract, fields=contract.key, envelope=Envelope.PLAIN, unknown_fields=UnknownFields.IGNORE
    )


_only_key: Compiled[Contract] = Compiled(_only_the_key)

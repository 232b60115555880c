"""The Kafka keys of records, as the contract's key columns: for deletes that say nothing else of their row."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict

import numpy as np
import pyarrow as pa

from contracts.model import Contract, Encoding, Envelope, UnknownFields
from udfs import slices, wire
from udfs.changes import SchemaSource
from udfs.decode_avro import adjusted, decode_avro
from udfs.decode_json import Shape, decode_json
from udfs.decoded import Piece
from udfs.wire import NO_HINT

_MOST = 4096


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


# A cache by identity, as in udfs.plans: the key part of a contract, seen as records of their own.
_ONLY: OrderedDict[int, tuple[Contract, Contract]] = OrderedDict()


def _only_key(contract: Contract) -> Contract:
    held = _ONLY.get(id(contract))
    if held is None or held[0] is not contract:
        only = dataclasses.replace(
            contract, fields=contract.key, envelope=Envelope.PLAIN, unknown_fields=UnknownFields.IGNORE
        )
        held = _ONLY[id(contract)] = (contract, only)
        if len(_ONLY) > _MOST:
            _ONLY.popitem(last=False)
    return held[1]

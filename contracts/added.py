"""Columns that a source gained while its contract stayed: with `unknownFields: add` they join the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from contracts.fields import storable_name
from contracts.model import Contract, Field, UnknownFields
from contracts.types import parse_type

Added = Mapping[str, str]  # name in the message -> type as contracts declare it


def addable(contract: Contract, columns: Mapping[str, str | None]) -> Added:
    """Give the columns of a message that can join a contract's tables: new, of a known type, with a usable name."""
    if contract.unknown_fields is not UnknownFields.ADD:
        return {}
    known = {name for field in contract.fields for name in (field.source, *field.aliases)}
    taken = {name.lower() for name in (*(f.name for f in contract.fields), *(d.name for d in contract.derived))}
    return {
        name: kind
        for name, kind in columns.items()
        if kind is not None and name not in known and name.lower() not in taken and storable_name(name) and _typed(kind)
    }


def with_added(contract: Contract, added: Added) -> Contract:
    """Give a contract with columns added after its own, by name; what it names itself stays as it says.

    Nothing says whether such a column is private: it has no mask, but its values stand in no file statistics.
    """
    new = addable(contract, added)
    fields = (Field(name, name, parse_type(new[name]), private=True) for name in sorted(new))
    return replace(contract, fields=(*contract.fields, *fields)) if new else contract


def _typed(kind: str) -> bool:
    try:
        read = parse_type(kind)
    except ValueError:
        return False
    # A message's schema does not tell bit(n) from bit varying(n), whose values have other leading zeros.
    return (read.element or read).name != "bit"

"""The names under which a contract's columns stand in messages."""

from __future__ import annotations

from contracts.model import Contract


def names_in_avro(contract: Contract) -> frozenset[str]:
    """Give all names under which a contract's fields may stand in an Avro message."""
    plain = {n for f in contract.fields for n in (f.source, *f.aliases)}
    return frozenset(plain | {adjusted(n) for n in plain})


def adjusted(name: str) -> str:
    """Give a column's name as Connect's `schema.name.adjustment.mode=avro` writes it."""
    letters = [c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name]
    return "".join(letters) if not name[:1].isdigit() else "_" + "".join(letters)

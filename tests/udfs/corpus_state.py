"""The corpus as refine's first step sees it: each table's contract, and its topic normalised as one batch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from contracts.load import load_contract
from contracts.model import Contract
from tests import corpus
from tests.corpus_truth import ENCODINGS, TABLES, Row, fold
from udfs.changes import Normalised
from udfs.normalise import normalise

__all__ = ["CONTRACTS", "ENCODINGS", "TABLES", "changes", "contract", "normalised", "state"]

CONTRACTS = Path(__file__).parents[1] / "data" / "contracts"


@cache
def contract(encoding: str, table: str) -> Contract:
    """Give the corpus contract of a table."""
    return load_contract(CONTRACTS / encoding / f"{table.lower().replace(' ', '_')}.odcs.yaml")


@cache
def normalised(encoding: str, table: str) -> Normalised:
    """Give a table's whole topic, normalised as one batch."""
    return normalise(corpus.records(encoding, table), contract(encoding, table), corpus.schema, now_ms=1)


def changes(encoding: str, table: str) -> list[Row]:
    """Give a table's changes as dicts, with the names of unset and flagged columns under `_unset` and `_flags`."""
    found = normalised(encoding, table).changes
    rows: list[Row] = found.table.to_pylist()
    for index, row in enumerate(rows):
        row["_unset"] = {name for name, mask in found.unset.items() if mask[index].as_py()}
        row["_flags"] = {name for name, reasons in found.flags.items() if reasons[index].is_valid}
    return rows


def state(encoding: str, table: str) -> dict[tuple[Any, ...], Row]:
    """Give a table's state after all its changes."""
    return fold(changes(encoding, table), [f.name for f in contract(encoding, table).key])

"""Verify: is a stream's current table what the source table is now?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from contracts.columns import own_schema
from contracts.model import Contract
from jobs.chosen import load_with_keys
from jobs.credentials import lake_options
from jobs.errors import CannotCompare, NoTableYet
from jobs.sides import Current, as_stored
from jobs.source import Source, SourceTable, column_of
from lakehouse.added import effective
from lakehouse.lake import Lake
from udfs.comparison import Comparison, compare
from udfs.keys import KeyRing

POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Verification:
    """What came of one comparison."""

    contract: Contract
    tables: Sequence[SourceTable]
    version: int  # of the current table
    comparison: Comparison
    left_out: dict[str, str] = field(default_factory=dict)  # columns that were not compared, and why


def verify(
    stream: str,
    contracts: Path,
    lake_uri: str,
    source_url: str,
    *,
    keys: Path | None = None,
    tables: Sequence[str] = (),
    first: int = 20,
    wait_seconds: float = 0,
    told: Callable[[Verification], None] | None = None,
) -> Verification:
    """Compare a stream's current table with its source; while they differ, again until the time is over.

    Raises TidegateError, LakehouseError or ContractError when they cannot be compared.
    """
    contract, ring = load_with_keys(contracts, stream, keys)
    lake = Lake.open(lake_uri, lake_options())
    until = time.monotonic() + wait_seconds
    while True:
        try:
            found = verify_once(contract, lake, source_url, ring, tables, first)
            if found.comparison.equal or time.monotonic() >= until:
                return found
            if told is not None:
                told(found)
        except NoTableYet:
            if time.monotonic() >= until:
                raise
        time.sleep(min(POLL_SECONDS, max(until - time.monotonic(), 0)))


def verify_once(
    contract: Contract, lake: Lake, source_url: str, keys: KeyRing, named: Sequence[str] = (), first: int = 20
) -> Verification:
    """Compare the newest version of a current table with one snapshot of the source."""
    _check_comparable(contract, lake)
    declared, contract = contract, effective(lake, contract)
    with Source.open(source_url) as source:
        tables = source.tables(contract, named)
        current = Current(contract, lake, keys)
        left_out = {**_not_yet(declared, contract, current), **_left_out(contract, tables)}
        columns = [name for name in own_schema(contract).names if name not in left_out]
        uncovered = [f.name for f in contract.key if f.name in left_out]
        if uncovered:
            raise CannotCompare(f"{contract.stream}: the key column {uncovered[0]} {left_out[uncovered[0]]}")
        lacking = [name for name in columns if name not in current.has]
        if lacking:
            raise CannotCompare(f"the table {contract.stream} has no column {lacking[0]}: run the pipeline first")
        now_ms = time.time_ns() // 1_000_000
        comparison = compare(
            lambda: (as_stored(rows, contract, keys, columns, now_ms) for rows in source.read(contract, tables)),
            lambda: current.read(columns),
            [f.name for f in contract.key],
            columns,
            first,
        )
    return Verification(contract, tables, current.version, comparison, left_out)


def _check_comparable(contract: Contract, lake: Lake) -> None:
    if not contract.key:
        raise CannotCompare(f"{contract.stream} has no key, and so no current table: there is nothing to compare")
    if contract.stream not in lake.tables():
        advice = "run the pipeline first" if "current" in contract.tables else "add `current` to the contract's tables"
        raise NoTableYet(f"the lake {lake.uri} holds no table {contract.stream}: {advice}")


def _not_yet(declared: Contract, contract: Contract, current: Current) -> dict[str, str]:
    """Give the columns that the stream has gained by itself and its table has not."""
    gained = {f.name for f in contract.fields} - {f.name for f in declared.fields}
    return dict.fromkeys(gained - current.has, "is new: no commit has brought it to the table yet")


def _left_out(contract: Contract, tables: Sequence[SourceTable]) -> dict[str, str]:
    """Give the columns that cannot be compared, with the reason, as the end of a sentence."""
    found = {}
    for table in tables:
        for name, column in column_of(contract, table).items():
            if column is None:
                found[name] = f"is not in {table}"
            elif column in table.generated:
                found[name] = f"is generated in {table}: no change event holds it"
    return found

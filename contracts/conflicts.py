"""Faults that only several contracts together have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from contracts.faults import Fault
from contracts.model import Contract
from contracts.tables import RESERVED_SUFFIXES


def find_conflicts(contracts: Sequence[Contract]) -> Iterable[Fault]:
    """Give a fault for every stream name that another contract has, or that names another stream's table."""
    owners: dict[str, Contract] = {}
    faults = []
    for contract in contracts:
        other = owners.get(contract.stream)
        if other is not None:
            message = f"the stream {contract.stream!r} is described in {other.file} too"
            faults.append(_fault(contract, message, "Rename one of them; one contract may read several topics"))
        owners.setdefault(contract.stream, contract)
    tables = {f"{stream}{suffix}": stream for stream in owners for suffix in RESERVED_SUFFIXES}
    for contract in contracts:
        for suffix in RESERVED_SUFFIXES[1:]:
            base = contract.stream.removesuffix(suffix)
            if contract.stream.endswith(suffix) and base in owners:
                message = f"{contract.stream!r} is the name of a table of the stream {base!r}"
                faults.append(_fault(contract, message, "Rename this stream"))
        for aggregate in contract.aggregates:
            table = f"{contract.stream}_{aggregate.name}"
            other_stream = tables.setdefault(table, contract.stream)
            if other_stream != contract.stream:
                message = f"the aggregate {aggregate.name!r} is called {table!r}, as a table of {other_stream!r}"
                faults.append(_fault(contract, message, "Rename the aggregate"))
    return faults


def _fault(contract: Contract, message: str, remedy: str) -> Fault:
    return Fault(contract.file, 0, "schema[0].name", message, remedy)

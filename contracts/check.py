"""Checks a directory of contracts without running anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from contracts.load import load_contracts
from contracts.model import Contract


def check_directory(path: str | Path, environment: Mapping[str, str] | None = None) -> tuple[Contract, ...]:
    """Give the contracts of a directory when all of them can be used; raises ContractError with all faults."""
    return load_contracts(path, environment)

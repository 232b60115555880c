"""The contracts that a command is about."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from contracts.load import load_contracts
from contracts.model import Contract
from jobs.errors import UnknownStream


def load_chosen(folder: Path, streams: Sequence[str]) -> tuple[Contract, ...]:
    """Give the contracts of a folder that describe these streams; all of them when none is named.

    Raises ContractError for faulty contracts, UnknownStream for a stream without one.
    """
    loaded = load_contracts(folder, dict(os.environ))
    known = [contract.stream for contract in loaded]
    if unknown := sorted(set(streams) - set(known)):
        raise UnknownStream(f"no contract describes {', '.join(unknown)}: there are {', '.join(known)} in {folder}")
    return tuple(contract for contract in loaded if not streams or contract.stream in streams)

"""The contracts that a command is about."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from contracts.load import load_contracts
from contracts.model import Contract
from jobs.credentials import key_ring
from jobs.errors import UnknownStream
from udfs.keys import KeyRing, require_keys


def load_chosen(folder: Path, streams: Sequence[str]) -> tuple[Contract, ...]:
    """Give the contracts of a folder that describe these streams; all of them when none is named.

    Raises ContractError for faulty contracts, UnknownStream for a stream without one.
    """
    loaded = load_contracts(folder, dict(os.environ))
    known = [contract.stream for contract in loaded]
    if unknown := sorted(set(streams) - set(known)):
        raise UnknownStream(f"no contract describes {', '.join(unknown)}: there are {', '.join(known)} in {folder}")
    return tuple(contract for contract in loaded if not streams or contract.stream in streams)


def load_with_keys(folder: Path, stream: str, keys: Path | None) -> tuple[Contract, KeyRing]:
    """Give one stream's contract, and the keys that its masks need: of a file, else of the environment.

    Raises as load_chosen does, and KeyProblem for keys that lack or cannot be read.
    """
    (contract,) = load_chosen(folder, [stream])
    ring = key_ring(str(keys) if keys else None)
    require_keys([contract], ring)
    return contract, ring

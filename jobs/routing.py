"""Which streams read which topic."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from contracts.model import Contract


def reads(contract: Contract, topic: str) -> bool:
    """Say whether a contract reads a topic, by name or by pattern (the whole name must match)."""
    pattern = contract.topic_pattern
    return topic in contract.topics or (pattern is not None and re.fullmatch(pattern, topic) is not None)


class Routes:
    """Gives the contracts that read a topic; several may read one topic, and one contract several topics."""

    def __init__(self, contracts: Sequence[Contract]) -> None:
        self._contracts = tuple(contracts)
        self.of = lru_cache(maxsize=10_000)(self._of)

    def _of(self, topic: str) -> tuple[Contract, ...]:
        return tuple(contract for contract in self._contracts if reads(contract, topic))

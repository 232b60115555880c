"""Which streams read which topic."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from contracts.model import Contract


class Routes:
    """Gives the contracts that read a topic; several may read one topic, and one contract several topics."""

    def __init__(self, contracts: Sequence[Contract]) -> None:
        self._contracts = tuple(contracts)
        self._patterns = tuple(re.compile(c.topic_pattern) if c.topic_pattern else None for c in contracts)
        self.of = lru_cache(maxsize=10_000)(self._of)

    def _of(self, topic: str) -> tuple[Contract, ...]:
        return tuple(
            contract
            for contract, pattern in zip(self._contracts, self._patterns, strict=True)
            if topic in contract.topics or (pattern is not None and pattern.fullmatch(topic))
        )

"""What is worked out once per contract and used for every batch after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")
KEPT = 4096  # compiled contracts; more streams than that in one worker cost time, never an answer


class Compiled(Generic[Made]):
    """A function of frozen values (a contract, a key ring) that is computed once for the same objects.

    Contracts hold mappings and so have no hash: the objects' identity is the key, and keeping the objects keeps the
    identities theirs.
    """

    def __init__(self, make: Callable[..., Made]) -> None:
        self._make = make
        self._made: dict[tuple[int, ...], tuple[tuple[Any, ...], Made]] = {}

    def __call__(self, *objects: Any) -> Made:
        key = tuple(map(id, objects))
        known = self._made.get(key)
        if known is None:
            if len(self._made) >= KEPT:
                self._made.clear()
            known = self._made[key] = (objects, self._make(*objects))
        return known[1]

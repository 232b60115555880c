"""Wait for what does not answer for a while: the store, the brokers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from jobs.errors import KafkaProblem
from lakehouse.errors import RetryableError

T = TypeVar("T")
PASSING = (RetryableError, KafkaProblem)  # what may pass by itself
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 10.0


@dataclass(frozen=True)
class Patience:
    """Tries again, ever more slowly, for up to `seconds`; then the job fails with the reason, and Flink restarts it."""

    seconds: float = 300.0
    sleep: Callable[[float], None] = time.sleep

    def until_done(self, verb: Callable[[], T], each: Callable[[], None]) -> T:
        """Give what the verb gives; `each` is called before each new try. Raises the verb's last error."""
        until, wait = time.monotonic() + self.seconds, FIRST_WAIT_SECONDS
        while True:
            try:
                return verb()
            except PASSING:
                if time.monotonic() > until:
                    raise
                each()
                self.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT_SECONDS)

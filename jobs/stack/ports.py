"""Free loopback ports, below the range from which the system takes the ports of outgoing connections."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable, Mapping

from jobs.stack.component import LOOPBACK
from jobs.stack.errors import StackError

FIRST, LAST = 15_000, 32_000
TRIES = 200


def is_free(port: int) -> bool:
    """Say whether a server could listen on the loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def choose(names: Iterable[str], kept: Mapping[str, int], taken: Iterable[int] = ()) -> dict[str, int]:
    """Give a free port for each name: the kept one where it is still free, so that addresses survive a restart."""
    used, chosen = set(taken), {}
    for name in names:
        port = kept.get(name)
        chosen[name] = port if port is not None and port not in used and is_free(port) else _another(used)
        used.add(chosen[name])
    return chosen


def _another(used: set[int]) -> int:
    source = random.SystemRandom()  # two stacks started at once must not try the same ports
    for _ in range(TRIES):
        port = source.randint(FIRST, LAST)
        if port not in used and is_free(port):
            return port
    raise StackError(f"found no free port on {LOOPBACK} between {FIRST} and {LAST}: stop what is not needed")

"""What `flink run` needs around it: the project's configuration and libraries, in a folder of this one call."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.stack import flink
from jobs.stack.component import Place

# The client plans for a few seconds and ends: the optimising compiler and a parallel collector cost it twice the CPU.
QUICK = {"env.java.opts.client": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"}

# How soon a job that failed starts again is for whoever runs the cluster: what the client says would go before it.
RESTARTS = {
    "restart-strategy.type": "",
    "restart-strategy.exponential-delay.initial-backoff": "",
    "restart-strategy.exponential-delay.max-backoff": "",
    "restart-strategy.exponential-delay.backoff-multiplier": "",
    "restart-strategy.exponential-delay.reset-backoff-threshold": "",
    "restart-strategy.exponential-delay.jitter-factor": "",
}


@contextmanager
def client_environment() -> Iterator[dict[str, str]]:
    """Give the environment variables for `flink run`; the folders they name last as long as the block."""
    with tempfile.TemporaryDirectory(prefix="tidegate-client-") as folder:
        place = Place(Path(folder), ports={}, settings={})
        own = {"python.executable": sys.executable, "python.client.executable": sys.executable}
        flink.write_client(place, {**own, **QUICK, **RESTARTS})
        yield flink.environment(place)

"""What `flink run` needs around it: the project's configuration and libraries, in a folder of this one call."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.stack import flink
from jobs.stack.component import Place


@contextmanager
def client_environment() -> Iterator[dict[str, str]]:
    """Give the environment variables for `flink run`; the folders they name last as long as the block."""
    with tempfile.TemporaryDirectory(prefix="tidegate-client-") as folder:
        place = Place(Path(folder), ports={}, settings={})
        own = {"python.executable": sys.executable, "python.client.executable": sys.executable}
        flink.write_client(place, own)
        yield flink.environment(place)

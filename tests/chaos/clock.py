"""Another clock for a process and all that it starts, by libfaketime: the machine's own clock is left alone.

The monotonic clock stays true, as it does when a host's clock is stepped.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path


def library() -> Path:
    """Give the library that the Python package libfaketime carries; raises FileNotFoundError."""
    found = find_spec("libfaketime")
    places = found.submodule_search_locations if found else None
    for place in places or ():
        for path in sorted(Path(place).rglob("libfaketime.so.1")):
            return path
    raise FileNotFoundError("libfaketime is missing: run `make setup`")


def behind(seconds: float) -> Mapping[str, str]:
    """Give the environment of a host whose clock is so many seconds behind."""
    return {
        "LD_PRELOAD": str(library()),
        "FAKETIME": f"-{seconds:g}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # by itself it guesses wrong, and Java's timed waits end at once
        "FAKETIME_DISABLE_SHM": "1",  # shared memory would outlive a kill, and its lock with it
    }


def stepping_back(seconds: float, after: float) -> Mapping[str, str]:
    """Give the environment of a process whose clock is true at first, and steps back when it has run for `after` s."""
    return {**behind(seconds), "FAKETIME_START_AFTER_SECONDS": f"{after:.0f}"}

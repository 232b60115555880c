"""Another clock for a process and all that it starts, by libfaketime: the machine's own clock is left alone.

The monotonic clock stays true, as it does when a host's clock is stepped.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

_OWN_CLOCK = {
    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # by itself it guesses wrong, and Java's timed waits end at once
    "FAKETIME_DISABLE_SHM": "1",  # shared memory would outlive a kill, and its lock with it
}


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
    return {**_OWN_CLOCK, "LD_PRELOAD": str(library()), "FAKETIME": f"-{seconds:g}s"}


def set_by(file: Path) -> Mapping[str, str]:
    """Give the environment of a host whose clock is set by a file, as step_back writes it; true at first."""
    _write(file, 0)
    clock = {"FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_CACHE_DURATION": "1"}  # s between two looks at the file
    return {**_OWN_CLOCK, "LD_PRELOAD": str(library()), **clock}


def step_back(file: Path, seconds: float) -> None:
    """Step the clock of all processes that were started with set_by(file), within a second."""
    _write(file, seconds)


def _write(file: Path, behind: float) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_text(f"-{behind:g}s\n", encoding="utf-8")
    fresh.rename(file)

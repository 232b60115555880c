"""A fault of ours that concerns one stream: told by its type and place, so that no value of a record can come along."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from jobs.errors import TidegateError
from lakehouse.errors import LakehouseError
from udfs.changes import RegistryUnavailable

T = TypeVar("T")
TRIES = 3
# What says what is wrong and concerns the whole job, not one stream's records.
UNDERSTOOD = (LakehouseError, TidegateError, RegistryUnavailable, MemoryError)
OWN = frozenset({"contracts", "udfs", "lakehouse", "jobs"})


class Defect(Exception):
    """One stream cannot go on for a reason that nobody foresaw; the others can."""


class WorkerEnds(Exception):
    """The process is ending; what fails in it now says nothing of the stream."""


def guarded(doing: str, verb: Callable[[], T]) -> T:
    """Give what the verb gives; raises Defect when it fails TRIES times for a reason that nobody foresaw.

    Raises WorkerEnds instead in a process that is ending: a worker whose TaskManager died may be in a commit when
    Python no longer starts threads for it, and must not leave the stream parked behind.
    """
    for left in reversed(range(TRIES)):
        try:
            return verb()
        except UNDERSTOOD:
            raise
        except Exception as error:
            if _process_ends():
                raise WorkerEnds(f"{doing} was broken off, because the process ends") from None
            if not left:
                raise Defect(_sentence(doing, error)) from None  # the cause may hold values
    raise AssertionError("unreachable")


def _process_ends() -> bool:
    """Say whether Python begins no work any more; its main thread counts as alive while it waits for the pools."""
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(int)
    except RuntimeError:
        return True
    return False


def _sentence(doing: str, error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = next((frame for frame in reversed(frames) if Path(frame.filename).parent.name in OWN), frames[-1])
    return (
        f"{doing} fails with {type(error).__name__} at {Path(place.filename).name}:{place.lineno}, each time. "
        "This is a fault in Tidegate or a library, not in your set-up: report it with this sentence. The records stay "
        "in Kafka; with a corrected version, `tidegate resume` reads them again."
    )

"""Refine and commit in one process, as in a worker: how much of its rate refine keeps while a commit runs."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from contracts.model import Encoding
from jobs.metrics import NoMetrics
from jobs.refinery import Refinery
from jobs.registry import Registries
from lakehouse.lake import Lake
from lakehouse.parking import Parking
from tests.bench.contract import keys, write_contracts
from tests.bench.generate import Load, raw_batch
from tests.bench.state import WITH_HISTORY, commit_random, filled

BATCH = 10_000


@dataclass(frozen=True)
class Beside:
    """Rates (records/s of one thread that refines) and how many commits ran beside it."""

    alone: float
    beside: float
    commits: int
    commit_seconds: float


def measure(home: Path, count: int, batch: int, seconds: float) -> Beside:
    """Refine for so long alone, then while commits of a batch to a table of so many rows follow one another."""
    with filled(home, count, WITH_HISTORY) as (lake, opened):
        stream, own = opened(), home / "beside"
        commit_random(stream, lake, 0, count, batch, 0.0)
        refining = _Refining(own)
        refining.rate(1.0)
        alone = refining.rate(seconds)
        stop, found = threading.Event(), list[float]()

        def commit() -> None:
            while not stop.is_set():
                found.append(commit_random(stream, lake, len(found) + 1, count, batch, 0.0)[0])

        committing = threading.Thread(target=commit)
        committing.start()
        beside = refining.rate(seconds)
        stop.set()
        committing.join()
        return Beside(alone, beside, len(found), sum(found) / max(len(found), 1))


class _Refining:
    """Refines the same records again and again, as new ones."""

    def __init__(self, home: Path) -> None:
        contracts = write_contracts(home / "c", [("customers", "bench.customers")], Encoding.JSON)
        lake = Lake.open(str(home / "lake"))
        self._records = raw_batch(Load("", ["bench.customers"], 4, Encoding.JSON), BATCH)
        metrics = NoMetrics()
        registries = Registries(contracts, metrics)
        self._refinery = Refinery(contracts, lake, Parking(lake, "bench"), registries, keys(), metrics)
        self._taken = 0

    def rate(self, seconds: float) -> float:
        """Give the records refined a second."""
        started, before = time.perf_counter(), self._taken
        while (passed := time.perf_counter() - started) < seconds:
            offsets = pa.chunked_array([self._records["offset"].to_numpy() + self._taken])
            place = self._records.schema.get_field_index("offset")
            self._refinery.take(self._records.set_column(place, self._records.schema.field(place), offsets))
            self._taken += BATCH
        return (self._taken - before) / passed

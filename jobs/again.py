"""Raw records go through today's contract once more, and what comes of them lands in the tables."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from contracts.model import Contract
from jobs.errors import RunRefused
from jobs.metrics import NoMetrics
from jobs.registry import Registries
from jobs.settings import VERSION
from lakehouse.lake import Lake
from lakehouse.landing import Landed, Landing
from lakehouse.segments import Section
from udfs.keys import KeyRing, pinned_keys
from udfs.refine import refine


@dataclass
class Again:
    """Refines records of one stream, and lands them; holds caches only."""

    contract: Contract
    lake: Lake
    pipeline: str
    keys: KeyRing

    def __post_init__(self) -> None:
        pins = pinned_keys(self.contract, self.keys)
        self._landing = Landing(self.lake, self.contract, self.pipeline, pins, VERSION)
        self._registries = Registries([self.contract], NoMetrics())

    def land(self, records: pa.Table, epochs: Mapping[str, int]) -> Landed:
        """Land records (RECORDS) of topics in these epochs. Raises RunRefused when a rule says to stop."""
        now_ms = int(time.time() * 1000)
        contract = self._landing.contract
        order = [("topic", "ascending"), ("partition", "ascending"), ("offset", "ascending")]
        refined = refine(
            records.sort_by(order).combine_chunks(), contract, self._registries.source(contract), self.keys, now_ms
        )
        if refined.failed is not None:
            raise RunRefused(f"{contract.stream}: {refined.failed}. Nothing of this batch was stored.")
        section = Section(contract.stream, refined.rows, refined.rejects, refined.others, (), refined.withheld)
        return self._landing.land(section, epochs, now_ms)

"""Exactly-once under fire: the short run of the chaos tool (tests/chaos); `make chaos` does every fault there is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rich.console import Console

from tests.chaos.inject.sitecustomize import BETWEEN_TABLES, COMMITTED, SEGMENT_WRITTEN
from tests.chaos.run import run

SEED = int(os.environ.get("TIDEGATE_CHAOS_SEED", "3"))
RECORDS = 2_000_000
MINUTES = 1.5
FAULTS = ("busy-worker", SEGMENT_WRITTEN, BETWEEN_TABLES, COMMITTED, "taskmanager", "jobmanager")


@pytest.mark.integration
@pytest.mark.timeout(1500)
def test_each_offset_is_in_the_tables_exactly_once_whatever_dies(tmp_path: Path) -> None:
    outcome = run(Console(), tmp_path / "chaos", seed=SEED, minutes=MINUTES, records=RECORDS, lake="s3", only=FAULTS)
    assert sum(outcome.found.values()) >= RECORDS
    assert set(outcome.faults) == set(FAULTS)
    assert outcome.resubmitted >= 1, "a JobManager died, and nobody submitted the job again"

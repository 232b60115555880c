"""Exactly-once under fire: the short run of the chaos tool (tests/chaos); `make chaos` does every fault there is."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest
from rich.console import Console

from tests.chaos.arena import Place
from tests.chaos.faults import FAULTS
from tests.chaos.inject.sitecustomize import POINTS
from tests.chaos.run import run

SEED = int(os.environ.get("TIDEGATE_CHAOS_SEED", "3"))
RECORDS = 1_200_000
MINUTES = 2.5
KILLS = ("busy-worker", "taskmanager", "jobmanager", "broker", "s3")
ALWAYS = (
    *KILLS, "zombie", "answers-lost", "foreign-commits", "index-damaged", "clock-steps-back", "lost-while-running",
)  # fmt: skip
OTHERS = tuple(fault for fault in FAULTS if fault not in (*ALWAYS, *POINTS))
DRAWN_POINTS, DRAWN = 4, 1  # of the points, and of the others, by the seed


def drawn(seed: int) -> tuple[str, ...]:
    """Give the faults of a short run."""
    random = Random(seed)
    return (*ALWAYS, *random.sample(POINTS, DRAWN_POINTS), *random.sample(OTHERS, DRAWN))


def test_each_fault_gets_its_turn_with_one_seed_or_another() -> None:
    assert {fault for seed in range(20) for fault in drawn(seed)} == set(FAULTS)


@pytest.mark.integration
@pytest.mark.timeout(1500)
def test_each_offset_is_in_the_tables_exactly_once_whatever_dies(tmp_path: Path) -> None:
    faults = drawn(SEED)
    outcome = run(
        Console(), tmp_path / "chaos", seed=SEED, minutes=MINUTES, records=RECORDS, place=Place(), only=faults
    )
    assert sum(outcome.found.values()) >= RECORDS
    assert set(outcome.faults) == set(faults)
    assert outcome.resubmitted >= 1, "a JobManager died, and nobody submitted the job again"

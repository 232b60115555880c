"""The schedule's promises."""

from __future__ import annotations

from itertools import islice

from tests.chaos.faults import FAULTS, ONCE
from tests.chaos.schedule import schedule

NAMES = tuple(FAULTS)


def test_the_same_seed_gives_the_same_schedule() -> None:
    assert list(islice(schedule(7, NAMES, ONCE), 100)) == list(islice(schedule(7, NAMES, ONCE), 100))
    assert list(islice(schedule(7, NAMES, ONCE), 100)) != list(islice(schedule(8, NAMES, ONCE), 100))


def test_every_fault_comes_once_before_any_comes_again_and_some_never_do() -> None:
    planned = [entry.fault for entry in islice(schedule(7, NAMES, ONCE), 200)]
    assert sorted(planned[: len(NAMES)]) == sorted(NAMES)
    assert not set(planned[len(NAMES) :]) & ONCE


def test_a_schedule_of_faults_that_never_come_again_ends() -> None:
    assert sorted(entry.fault for entry in schedule(7, sorted(ONCE), ONCE)) == sorted(ONCE)

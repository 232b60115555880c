"""One chaos run: start everything, do harm by the schedule, let the job finish, and count."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from rich.console import Console
from rich.status import Status

from jobs.cluster import Cluster
from lakehouse.standing import standings
from tests.chaos.arena import PIPELINE, Arena, Place, Stalled
from tests.chaos.faults import FAULTS, NEEDS_S3, ONCE
from tests.chaos.points import disarm
from tests.chaos.schedule import schedule
from tests.chaos.verify import verify

FIRST_SECONDS = 300.0
LEVEL_SECONDS = 420.0


class NotExactlyOnce(AssertionError):
    """The tables are not what was produced."""


@dataclass
class Diary:
    """What happened, with times: printed as it goes, kept in a file, shown again when something fails."""

    console: Console
    home: Path
    seed: int
    begun: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add one line."""
        line = f"{time.monotonic() - self.begun:6.1f} s  {text}"
        self.lines.append(line)
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        with (self.home / "diary.txt").open("a", encoding="utf-8") as diary:
            diary.write(line + "\n")

    def epitaph(self) -> str:
        """Give what is needed to repeat a run that failed, and to find out why."""
        what = "\n".join(self.lines)
        return f"seed {self.seed}; logs, events and lake are in {self.home}; the schedule so far:\n{what}"


@dataclass(frozen=True)
class Outcome:
    """A run that kept the law."""

    records: int
    faults: Counter[str]
    seconds: float
    found: Counter[str]  # records by stream and fate
    resubmitted: int


def run(
    console: Console, home: Path, *, seed: int, minutes: float, records: int, place: Place, only: tuple[str, ...] = ()
) -> Outcome:
    """Run, each fault at least once and for at least so many minutes; raises NotExactlyOnce or Stalled."""
    home.mkdir(parents=True, exist_ok=True)
    diary = Diary(console, home, seed)
    try:
        with Arena(home, seed, records / (minutes * 60), records, place) as arena, console.status("starting") as status:
            diary.say(f"seed {seed}: Kafka ({place.encoding}), Flink and the lake ({arena.lake.uri}) run")
            arena.until("the first records are committed", lambda: arena.committed() > 0, FIRST_SECONDS)
            faults = _harm(arena, diary, status, minutes * 60, place.lake, only)
            diary.say(f"{sum(faults.values())} faults done; the rest of the records")
            return _count(arena, diary, status, faults)
    except Exception as error:
        error.add_note(diary.epitaph())
        raise


def _harm(arena: Arena, diary: Diary, status: Status, seconds: float, lake: str, only: tuple[str, ...]) -> Counter[str]:
    """Do harm until the time is over and every fault was done once."""
    names = [n for n in (only or FAULTS) if lake == "s3" or n not in NEEDS_S3]
    until, done = time.monotonic() + seconds, Counter[str]()
    for planned in schedule(diary.seed, names, ONCE):
        if planned.number > len(names) and time.monotonic() > until:
            break
        status.update(f"{planned.fault} ({arena.flow.total:,} produced, {max(arena.committed(), 0):,} committed)")
        time.sleep(planned.pause)
        diary.say(f"{planned.number}. {planned.fault}: {FAULTS[planned.fault](arena, Random(planned.seed))}")
        done[planned.fault] += 1
        if planned.recover:
            arena.moving()
    disarm(arena)
    return done


def _count(arena: Arena, diary: Diary, status: Status, faults: Counter[str]) -> Outcome:
    status.update("waiting until all is committed")
    arena.flow.finish()
    arena.level(LEVEL_SECONDS)
    cluster = Cluster(arena.stack.flink_address)
    arena.dismiss()
    job = cluster.running(f"tidegate {PIPELINE}")
    if job is not None:
        cluster.cancel(job)
    diary.say(f"{arena.flow.total:,} records produced and committed; comparing")
    status.update("comparing")
    lake = arena.directly()
    stands = standings(lake, arena.contracts, PIPELINE)
    found, wrong = verify(lake, diary.seed, arena.flow.produced, stands)
    if wrong:
        raise NotExactlyOnce("the law is broken:\n" + "\n".join(f"- {fault}" for fault in wrong))
    seconds = time.monotonic() - diary.begun
    diary.say(f"each of {sum(found.values()):,} offsets is where it should be, once")
    return Outcome(arena.flow.total, faults, seconds, found, arena.resubmitted())


__all__ = ["NotExactlyOnce", "Outcome", "Stalled", "run"]

"""How fresh a stream is: green, amber or red, and why. Pure: what is committed, what waits and the time are given.

A source that says nothing is not one that is broken. Where a promise about the age of data is passed, the silence is
judged by what waits in Kafka, by heartbeats, and by what is usual at this hour of the week, in this order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from contracts.model import ServiceLevels
from lakehouse.rates import HOUR_MS, Usual, into_hour_ms
from lakehouse.standing import Standing

NEAR_SHARE = 0.8  # of a limit
GRACE_MS = 60_000  # records that wait for so long, or for a limit that is shorter, are more than on their way
STALLED_MS = 10 * 60_000  # without a commit, while records wait for as long
HEARTBEAT_MS = 10 * 60_000  # heartbeats that stay away for so long, or for a limit that is longer, have stopped
SKEW_MS = 1_000  # event times that are further ahead are told
SURE = 10  # records that should have come: by chance none of them does once in 20,000 times

HEARTBEATS = "kind.heartbeat"  # in the anchor's counts


class Colour(StrEnum):
    """How a stream is, at a glance."""

    GREEN = "green"
    AMBER = "amber"  # near a limit, or quiet, or not to be told
    RED = "red"  # a promise is broken, or the stream is


class Job(StrEnum):
    """How the pipeline's job is, as the cluster says."""

    RUNS = "runs"
    FAILS = "fails"  # and is about to start again
    DOWN = "down"  # it ended, or nobody says that it runs


class Cause(StrEnum):
    """Why a stream has its colour."""

    FINE = "fine"
    NEAR = "near"  # more than NEAR_SHARE of a limit is used
    QUIET = "quiet"  # a limit is passed, because the source says nothing
    UNKNOWN = "unknown"  # what waits in Kafka was not asked
    IDLE = "idle"  # no job runs, and nothing waits
    VIOLATED = "violated"
    SILENT = "silent"  # the source says nothing at an hour at which it always does
    HEARTBEATS_STOPPED = "heartbeats_stopped"
    STALLED = "stalled"  # the job runs and commits nothing, while records wait
    JOB_FAILS = "job_fails"
    JOB_DOWN = "job_down"
    PARKED = "parked"


SEVERITY = (Colour.GREEN, Colour.AMBER, Colour.RED)


@dataclass(frozen=True)
class Waiting:
    """What Kafka holds for a stream that is not committed."""

    records: int  # offsets; transaction markers may be among them
    oldest_ms: int | None = None  # when the oldest came to Kafka, by its timestamp; None: not known


@dataclass(frozen=True)
class Past:
    """What earlier evaluations say of a stream."""

    usual: Usual | None = None  # None: not enough history
    heartbeat_ms: int | None = None  # when the newest heartbeat was known of; None: none ever was


@dataclass(frozen=True)
class Measures:
    """How old things are, in ms and never below 0; None where nothing says."""

    event_lag_ms: int | None = None  # age of the newest event, which is not newer than its commit
    waiting: int | None = None  # records; None: Kafka was not asked
    oldest_waiting_ms: int | None = None
    commit_age_ms: int | None = None
    watermark_lag_ms: int | None = None
    arrival_age_ms: int | None = None  # since rows last came
    delay_ms: int | None = None  # from the newest event of the last rows to their commit
    ahead_ms: int = 0  # by how much event times are ahead of the clock

    @property
    def waits(self) -> bool:
        """Whether records are known to wait."""
        return bool(self.waiting)


@dataclass(frozen=True)
class Level:
    """How one promise stands; `value_ms` None: nothing to measure yet."""

    name: str
    value_ms: int | None
    limit_ms: int

    @property
    def passed(self) -> bool:
        """Whether the limit is passed."""
        return self.value_ms is not None and self.value_ms > self.limit_ms

    @property
    def near(self) -> bool:
        """Whether most of the limit is used."""
        return self.value_ms is not None and self.value_ms > NEAR_SHARE * self.limit_ms


@dataclass(frozen=True)
class Health:
    """How a stream is, why, and what was measured."""

    colour: Colour
    cause: Cause
    reason: str  # a sentence; empty where nothing is to be said
    measures: Measures
    levels: tuple[Level, ...] = ()


@dataclass(frozen=True)
class Asked:
    """One stream to judge: what it promises, how far it is, and what is known around it."""

    sla: ServiceLevels
    standing: Standing
    waiting: Waiting | None  # None: Kafka was not asked
    job: Job
    parked: str | None = None  # why it stands still
    past: Past = Past()


Verdict = tuple[Colour, Cause, str]
FINE: Verdict = (Colour.GREEN, Cause.FINE, "")


def evaluate(asked: Asked, now_ms: int) -> Health:
    """Judge one stream as of a time."""
    measures = measure(asked.standing, asked.waiting, now_ms)
    levels = tuple(_levels(asked.sla, measures))
    verdicts = [*_broken(asked, measures, levels), *(_judged(level, asked, measures, now_ms) for level in levels), FINE]
    colour, cause, reason = max(verdicts, key=lambda verdict: SEVERITY.index(verdict[0]))  # the first of the worst
    if measures.ahead_ms > SKEW_MS:
        reason = "; ".join(
            filter(None, [reason, f"event times are up to {span(measures.ahead_ms)} ahead of the clock"])
        )
    return Health(colour, cause, reason, measures, levels)


def measure(standing: Standing, waiting: Waiting | None, now_ms: int) -> Measures:
    """Give how old things are; an event from the future counts as one of the moment it was committed."""
    anchor = standing.anchor
    states = list(anchor.partitions.values()) if anchor else []
    arrivals = [s.active for s in states if s.active is not None]
    timed = [(s.event_time, s.active) for s in states if s.event_time is not None]
    events = [time if active is None else min(time, active) for time, active in timed]
    last = max(arrivals, default=None)
    delays = [max(0, active - time) for time, active in timed if active is not None and active == last]
    oldest = waiting.oldest_ms if waiting else None
    return Measures(
        event_lag_ms=_age(max(events, default=None), now_ms),
        waiting=waiting.records if waiting else None,
        oldest_waiting_ms=_age(oldest, now_ms) if waiting and waiting.records else None,
        commit_age_ms=_age(standing.committed_at_ms, now_ms),
        watermark_lag_ms=_age(anchor.watermark_ms if anchor else None, now_ms),
        arrival_age_ms=_age(last, now_ms),
        delay_ms=min(delays, default=None),
        ahead_ms=max(0, max((time for time, _ in timed), default=now_ms) - now_ms),
    )


def _age(then_ms: int | None, now_ms: int) -> int | None:
    return None if then_ms is None else max(0, now_ms - then_ms)


def _levels(sla: ServiceLevels, m: Measures) -> Iterator[Level]:
    if sla.latency_ms is not None:
        yield Level("latency", _latency(sla.latency_ms, sla.latency_from_event, m), sla.latency_ms)
    if sla.freshness_ms is not None:
        yield Level("freshness", m.event_lag_ms, sla.freshness_ms)
    if sla.frequency_ms is not None:
        yield Level("frequency", m.arrival_age_ms, sla.frequency_ms)


def _latency(limit_ms: int, from_event: bool, m: Measures) -> int | None:
    """Give how long the oldest waiting record waits, or how late the last rows were while they are news."""
    found = [0] if m.waiting == 0 else []
    if m.oldest_waiting_ms is not None:
        found.append(m.oldest_waiting_ms)
    if from_event and m.delay_ms is not None and (m.arrival_age_ms or 0) <= limit_ms:
        found.append(m.delay_ms)
    return max(found, default=None)


def _broken(asked: Asked, m: Measures, levels: Sequence[Level]) -> Iterator[Verdict]:
    """Say what is wrong whatever is promised."""
    if asked.parked is not None:
        yield Colour.RED, Cause.PARKED, f"it stands still: {asked.parked}"
    if asked.job is not Job.DOWN:
        if asked.job is Job.FAILS:
            yield Colour.RED, Cause.JOB_FAILS, f"the job fails and starts again: {_waits(m)}"
        if m.waits and _stalled(m):
            yield Colour.RED, Cause.STALLED, f"the job runs, but commits nothing: {_waits(m)}"
    elif m.waits:
        yield Colour.RED, Cause.JOB_DOWN, f"the job does not run: {_waits(m)}"
    elif m.waiting is None:
        if any(level.passed for level in levels):
            yield Colour.RED, Cause.JOB_DOWN, "the job does not run"
        yield Colour.AMBER, Cause.UNKNOWN, "the job does not run; give --kafka to know whether records wait"
    elif levels:
        yield Colour.AMBER, Cause.IDLE, "the job does not run; nothing waits"


def _stalled(m: Measures) -> bool:
    return (m.oldest_waiting_ms or 0) > STALLED_MS and (m.commit_age_ms is None or m.commit_age_ms > STALLED_MS)


def _judged(level: Level, asked: Asked, m: Measures, now_ms: int) -> Verdict:
    """Judge one promise."""
    if level.value_ms is None:
        if level.name == "latency" or m.waits:
            return FINE  # the first records are on their way: a latency, or the stall, says when for too long
        return Colour.AMBER, Cause.QUIET, f"no rows came yet, so that the {level.name} cannot be told"
    said = f"{level.name} {span(level.value_ms)} of {span(level.limit_ms)}"
    if not level.passed:
        return (Colour.AMBER, Cause.NEAR, f"near its limit: {said}") if level.near else FINE
    if level.name == "latency" or _held(level, m):
        also = f": {_waits(m)}" if m.waits else ""
        return Colour.RED, Cause.VIOLATED, f"violated: {said}{also}"
    if _arrives(level, m):
        return Colour.RED, Cause.VIOLATED, f"violated: {said}: rows come, but with old events"
    if m.waiting is None:
        return Colour.AMBER, Cause.UNKNOWN, f"{said}: quiet or behind; give --kafka to know whether records wait"
    return _silence(level, said, asked.past, m, now_ms)


def _held(level: Level, m: Measures) -> bool:
    """Say whether records wait for longer than those that are on their way."""
    if not m.waits:
        return False
    return m.oldest_waiting_ms is None or m.oldest_waiting_ms > min(GRACE_MS, level.limit_ms)


def _arrives(level: Level, m: Measures) -> bool:
    return m.arrival_age_ms is not None and m.arrival_age_ms <= level.limit_ms


def _silence(level: Level, said: str, past: Past, m: Measures, now_ms: int) -> Verdict:
    """Judge a source that says nothing, with nothing left to commit."""
    quiet = f"quiet: {said}"
    if past.heartbeat_ms is not None:
        age = max(0, now_ms - past.heartbeat_ms)
        if age > max(HEARTBEAT_MS, level.limit_ms):
            return Colour.RED, Cause.HEARTBEATS_STOPPED, f"{said}, and the source's heartbeats stopped {span(age)} ago"
        return Colour.AMBER, Cause.QUIET, f"{quiet}, but the source's heartbeats come"
    if past.usual is None:
        return Colour.AMBER, Cause.QUIET, f"{quiet}; not enough history to say whether that is usual"
    per_hour = past.usual.per_hour
    silent_ms = min(m.arrival_age_ms if m.arrival_age_ms is not None else level.value_ms or 0, into_hour_ms(now_ms))
    if per_hour * silent_ms / HOUR_MS >= SURE:
        told = f"nothing came for {span(silent_ms)} of an hour that never brought less than {per_hour:,.0f} records"
        return Colour.RED, Cause.SILENT, f"{said}, and {told}"
    return Colour.AMBER, Cause.QUIET, f"{quiet}, which is not unusual at this hour of the week"


def _waits(m: Measures) -> str:
    if m.waiting is None:
        return "whether records wait is not known"
    if not m.waiting:
        return "nothing waits"
    verb = "record waits" if m.waiting == 1 else "records wait"
    since = f", the oldest for {span(m.oldest_waiting_ms)}" if m.oldest_waiting_ms is not None else ""
    return f"{m.waiting:,} {verb}{since}"


UNITS = (("d", 86_400_000), ("h", HOUR_MS), ("min", 60_000), ("s", 1_000))


def span(ms: int) -> str:
    """Give a duration for people: the largest unit of which there are two or more, else the next."""
    for name, size in UNITS:
        if ms >= 2 * size:
            return f"{ms // size:,} {name}"
    return f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms} ms"

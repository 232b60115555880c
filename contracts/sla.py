"""Reads the service levels (`slaProperties`) that a running pipeline is judged by: latency, freshness, frequency.

One with the setting `action` is a rule about each row instead, and is read with the rules. Other properties of the
standard (retention, generalAvailability, ...) are for other readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contracts.durations import UNITS_MS, parse_duration
from contracts.faults import Faults, Place
from contracts.model import EventTime, ServiceLevels
from contracts.odcs import settings_at

LONGEST_MS = 10 * UNITS_MS["y"]


@dataclass(frozen=True)
class LevelKind:
    """What one service level limits, and what its `element` may be, as docs/contracts.md says it."""

    limits: str
    element: str


LEVEL_KINDS: Mapping[str, LevelKind] = {
    "latency": LevelKind(
        "How long a record that Kafka holds waits until it is committed: the age of the oldest that waits. With an "
        "`element`, or where the event time is when the database committed, also the time from the event to its commit",
        "the event time's column",
    ),
    "freshness": LevelKind("The age of the newest event in the tables", "the event time's column"),
    "frequency": LevelKind("The time since rows last came", "-"),
}


def read_service_levels(value: Mapping[str, Any], stream: str, event_time: EventTime, faults: Faults) -> ServiceLevels:
    """Give the promises among a document's slaProperties; each may stand there once."""
    limits: dict[str, int] = {}
    from_event = event_time.field is None
    for index, level in enumerate(value.get("slaProperties") or []):
        place: Place = ("slaProperties", index)
        name = str(level["property"]).lower()
        if name not in LEVEL_KINDS or _is_rule(level, place):
            continue
        if name in limits:
            faults.add((*place, "property"), f"the service level {name!r} is given twice", "Keep one of them")
            continue
        limits[name] = _limit(level, name, place, faults)
        if level.get("element") and _check_element(str(level["element"]), name, stream, event_time, place, faults):
            from_event |= name == "latency"
    return ServiceLevels(
        latency_ms=limits.get("latency"),
        latency_from_event=from_event and "latency" in limits,
        freshness_ms=limits.get("freshness"),
        frequency_ms=limits.get("frequency"),
    )


def _is_rule(level: Mapping[str, Any], place: Place) -> bool:
    """Say whether an entry has an action; what is wrong with its settings is noted where the rules are read."""
    return "action" in settings_at(level, place, "slaSetting", Faults(""))


def _limit(level: Mapping[str, Any], name: str, place: Place, faults: Faults) -> int:
    """Give the limit, ms; one that cannot be read is a fault."""
    unit = level.get("unit")
    if unit is None:
        faults.add(place, f"the {name} has no unit", "Add one, such as `unit: s`, `min`, `h` or `d`")
        return 1
    written = level.get("value")
    try:
        limit = 0 if isinstance(written, bool) else parse_duration(f"{written} {unit}")
    except ValueError as error:
        faults.add(place, str(error), "Write a number as `value`, and a unit such as `s`, `min`, `h` or `d`")
        return 1
    if not 0 < limit <= LONGEST_MS:
        faults.add((*place, "value"), f"a {name} is a time above 0, at most 10 years", "Write a number above 0")
    return limit


def _check_element(element: str, name: str, stream: str, event_time: EventTime, place: Place, faults: Faults) -> bool:
    """Say whether the element is what the stream's time is taken from; anything else is a fault."""
    column = element.removeprefix(f"{stream}.")
    if name == "frequency":
        if column == stream:
            return True
        faults.add((*place, "element"), "a frequency is of the stream, not of a column", "Leave `element` out")
        return False
    if column == event_time.field:
        return True
    known = f"is {event_time.field!r}" if event_time.field else "is no column"
    remedy = "Leave `element` out, or name that column in the setting `eventTime`"
    if name == "latency":
        remedy += ", or add the setting `action`: then each row is checked"
    message = f"the {name} of {column!r} is not measured: the stream's event time {known}"
    faults.add((*place, "element"), message, remedy)
    return False

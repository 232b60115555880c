"""Reads the settings of a whole contract that need more than a look at their value."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from contracts.durations import parse_duration
from contracts.faults import Faults
from contracts.fields import Columns
from contracts.model import EventTime, Start
from contracts.odcs import Setting, Settings, suggestion
from contracts.quality import check_pattern
from contracts.tables import TABLE_KINDS, kinds_by_name
from contracts.values import is_day

ALWAYS_KEPT = "quarantine"  # a refused record must have a place

NO_KEY = (
    "Mark the key's columns with `primaryKey: true`, or keep other tables. The updates and deletes of a table without "
    "a primary key name no row; where it has REPLICA IDENTITY FULL, write `identity: full` and mark columns that tell "
    "its rows apart"
)

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


def expand(text: str, environment: Mapping[str, str], place_of: Setting, faults: Faults) -> str:
    """Replace ${NAME} and ${NAME:-default}; a name without a value is a fault."""

    def value(found: re.Match[str]) -> str:
        if found[1] in environment:
            return environment[found[1]]
        if found[2] is None:
            remedy = f"Set it, or write a default: ${{{found[1]}:-value}}"
            faults.add(place_of.place, f"the variable {found[1]} is not set", remedy)
        return found[2] or ""

    return _VARIABLE.sub(value, text)


def read_topics(
    table: Mapping[str, Any], settings: Settings, environment: Mapping[str, str], faults: Faults
) -> tuple[tuple[str, ...], str | None]:
    """Give the topics by name, or the pattern of their names."""
    if "topics" in settings and "topicPattern" in settings:
        faults.add(settings["topicPattern"].place, "topics and topicPattern exclude each other", "Keep one of them")
    if "topicPattern" in settings:
        setting = settings["topicPattern"]
        pattern = expand(setting.value, environment, setting, faults)
        try:
            # Python and Kafka read the pattern too: what all three understand is what RE2 does.
            check_pattern(pattern)
            re.compile(pattern)
        except (ValueError, re.error) as error:
            faults.add(setting.place, f"the pattern cannot be read ({error})", "Write an RE2 regular expression")
        return (), pattern
    written = settings.get("topics") or Setting([table.get("physicalName")], ("schema", 0, "physicalName"))
    if written.value == [None]:
        remedy = "Write the topic as `physicalName` of the table, or add the setting `topics` or `topicPattern`"
        faults.add(("schema", 0), "the contract names no topic", remedy)
        return (), None
    topics = tuple(dict.fromkeys(expand(name, environment, written, faults) for name in written.value))
    for topic in topics:
        if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
            remedy = "Use letters, digits, `.`, `_` and `-`; for several topics add the setting `topics`"
            faults.add(written.place, f"{topic!r} is no Kafka topic name", remedy)
    return topics, None


def read_registry(settings: Settings, environment: Mapping[str, str], faults: Faults) -> str | None:
    """Give the address of the schema registry, without a slash at the end."""
    avro = "encoding" in settings and settings["encoding"].value == "avro"
    if "registry" not in settings:
        if avro:
            remedy = "Add the setting `registry`, such as `http://registry:8081`"
            faults.add(settings["encoding"].place, "avro needs the address of a schema registry", remedy)
        return None
    setting = settings["registry"]
    address = expand(setting.value, environment, setting, faults).rstrip("/")
    if not address:
        return None
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        with_user = "@" in parts.netloc
    except ValueError:
        usable, with_user = False, False
    if not usable:
        faults.add(setting.place, "the registry's address is no http or https URL", "Write `http://host:port`")
    if with_user:
        remedy = "Take user and password out; they come from the Kafka client's settings file"
        faults.add(setting.place, "the registry's address holds credentials", remedy)
    if not avro:
        faults.add(setting.place, "only avro has a registry", "Leave it out, or set `encoding` to avro")
    return address


def read_event_time(settings: Settings, columns: Columns, faults: Faults) -> EventTime:
    """Give the event time's column and tolerances."""
    if "eventTime" not in settings:
        return EventTime()
    setting = settings["eventTime"]
    written = setting.value
    field = written.get("field")
    if field is not None:
        _check_event_field(field, setting, columns, faults)
    names = {
        "outOfOrderness": "out_of_orderness_ms",
        "idleTimeout": "idle_timeout_ms",
        "maxFutureSkew": "max_future_skew_ms",
        "allowedLateness": "allowed_lateness_ms",
    }
    durations = {}
    for name, target in names.items():
        if name not in written:
            continue
        try:
            durations[target] = parse_duration(written[name])
        except ValueError as error:
            faults.add((*setting.place, name), str(error), "Write a number and a unit, such as `10 s` or `5 minutes`")
    return EventTime(field, **durations)


def _check_event_field(field: str, setting: Setting, columns: Columns, faults: Faults) -> None:
    place = (*setting.place, "field")
    found = next((column for column in columns.fields if column.name == field), None)
    if found is None:
        remedy = suggestion(field, [column.name for column in columns.fields])
        faults.add(place, f"the contract has no column {field!r} of the source", remedy)
    elif not is_day(found.type):
        faults.add(place, f"the column {field!r} is no date or timestamp", "Name one that is, or leave `field` out")
    elif found.private:
        remedy = "Name another column, or leave `field` out"
        faults.add(place, f"the event time of {field!r} would be stored without its mask", remedy)


def read_tables(settings: Settings, keyed: bool, faults: Faults) -> tuple[str, ...]:
    """Give the kinds of tables to keep, in commit order."""
    if "tables" not in settings:
        return tuple(kind.name for kind in TABLE_KINDS if kind.name in (ALWAYS_KEPT, "changes"))
    known, setting = kinds_by_name(), settings["tables"]
    for index, name in enumerate(setting.value):
        place = (*setting.place, index)
        if name not in known:
            faults.add(place, f"unknown kind of table {name!r}", suggestion(name, known))
        elif known[name].needs_key and not keyed:
            message = f"the table {name!r} needs a key: without one nothing tells which row a change is about"
            faults.add(place, message, NO_KEY)
    if "history" in setting.value and "current" not in setting.value:
        message = "the table 'history' is kept beside 'current', which knows each key's last change"
        faults.add(setting.place, message, "Add `current` to the tables")
    return tuple(name for name in known if name in setting.value or name == ALWAYS_KEPT)


def read_identity(settings: Settings, faults: Faults) -> bool:
    """Say whether old rows are complete (REPLICA IDENTITY FULL)."""
    if "identity" not in settings:
        return False
    if settings["identity"].value == "index":
        message = "REPLICA IDENTITY USING INDEX gives deletes a wrong key, and changes of a key as plain updates"
        remedy = "Alter the table to REPLICA IDENTITY DEFAULT or FULL, and write `identity: default` or `full`"
        faults.add(settings["identity"].place, message, remedy)
    return bool(settings["identity"].value == "full")


def read_start(settings: Settings, faults: Faults) -> tuple[Start, int | None]:
    """Give where a stream without progress begins, and the time in ms when it is a time."""
    if "start" not in settings:
        return Start.EARLIEST, None
    written = settings["start"].value
    if written in (Start.EARLIEST, Start.LATEST):
        return Start(written), None
    try:
        moment = dt.datetime.fromisoformat(written)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
        return Start.TIMESTAMP, int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        remedy = "Write earliest, latest or a time such as 2026-01-31T00:00:00Z"
        faults.add(settings["start"].place, "the stream's start cannot be read", remedy)
        return Start.EARLIEST, None


def read_references(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Give the reference lists by name."""
    lists = settings["references"].value if "references" in settings else {}
    return {name: tuple(values) for name, values in lists.items()}

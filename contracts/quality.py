"""Quality rules: reads what ODCS and Tidegate let a contract say about good rows."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contracts.durations import parse_duration
from contracts.faults import Faults, Place
from contracts.model import Action, Rule
from contracts.odcs import VENDOR, settings_at, suggestion, valid
from contracts.types import MICROS_UTC, ColumnType
from contracts.values import bound, is_bounded, is_day, is_listed, is_long, is_words, limit

EXTERNAL = "external"
RULE_NAME = r"[A-Za-z0-9_.-]{1,100}"


@dataclass(frozen=True)
class RuleKind:
    """One kind of rule, as contracts may name it."""

    holds: str  # when a row meets it, one sentence for the documents
    arguments: str  # for the documents
    takes: Callable[[ColumnType], bool] | None  # None: the rule reads the whole row
    taken: str


TIMES = "dates, timestamps; without a column, the event time"

RULE_KINDS: dict[str, RuleKind] = {
    "required": RuleKind("The value is there.", "", lambda _: True, "any"),
    "key_present": RuleKind("Every key column has a value (implied by a key).", "", None, "the key"),
    "pattern": RuleKind("The whole text matches an RE2 regular expression.", "`pattern`", is_words, "text"),
    "minimum": RuleKind(
        "The value is at least the given one.", "`value`, `exclusive`", is_bounded, "numbers, dates, timestamps"
    ),
    "maximum": RuleKind(
        "The value is at most the given one.", "`value`, `exclusive`", is_bounded, "numbers, dates, timestamps"
    ),
    "enum": RuleKind("The value is one of a list.", "`values`", is_listed, "any but arrays, points and bytea"),
    "length": RuleKind(
        "There are min to max characters, bytes or items.", "`min`, `max`", is_long, "text, bytea, arrays"
    ),
    "not_in_future": RuleKind(
        "The time is not ahead of the clock by more than the skew.", "`skew` (default `0 s`)", is_day, TIMES
    ),
    "freshness": RuleKind("The time is not older than the age.", "`maxAge`", is_day, TIMES),
    "expression": RuleKind("A SQL condition over the row is true or null.", "`sql`", None, "the row"),
    "reference": RuleKind("The text is in a list of `references`.", "`list`", is_words, "text"),
}

# Options of logicalTypeOptions that say nothing about a value that the type does not say already.
INFORMATION = frozenset({"format", "timezone", "defaultTimezone"})
SIZES = {"minLength": "min", "maxLength": "max", "minItems": "min", "maxItems": "max"}

# Kinds of rules that are about the event time when they name no column.
OF_EVENT_TIME = frozenset({"not_in_future", "freshness"})
EVENT_TIME = ColumnType("timestamptz", MICROS_UTC)


@dataclass(frozen=True)
class Spot:
    """Where a rule is declared and what holds for it there."""

    place: Place
    field: str | None  # the column it stands at; None: it stands at the table
    action: str
    name: str | None = None  # as declared


@dataclass
class Rules:
    """The rules read so far, and the place of each in the file."""

    columns: Mapping[str, ColumnType]
    references: Mapping[str, tuple[str, ...]]
    faults: Faults
    untyped: Set[str] = frozenset()  # columns of the contract that have no type
    rules: list[Rule] = dataclasses.field(default_factory=list)
    places: list[Place] = dataclasses.field(default_factory=list)

    def add(self, kind: str, arguments: dict[str, Any], spot: Spot) -> None:
        """Note one rule, after checking that its name is new and that its kind and arguments fit its column."""
        named = spot.name or (f"{spot.field}_{kind}" if spot.field else kind)
        if any(rule.name == named for rule in self.rules):
            self.faults.add(spot.place, f"a second rule is named {named!r}", "Give the rule a `name` of its own")
            return
        of_row = RULE_KINDS[kind].takes is None
        checked = arguments if of_row else self._arguments(kind, arguments, spot)
        if checked is not None:
            self.rules.append(Rule(named, kind, Action(spot.action), None if of_row else spot.field, checked))
            self.places.append(spot.place)

    def _arguments(self, kind: str, given: dict[str, Any], spot: Spot) -> dict[str, Any] | None:
        if spot.field in self.untyped:
            return None
        takes, column = RULE_KINDS[kind].takes, self.columns.get(spot.field or "")
        if spot.field is None and kind in OF_EVENT_TIME:
            column = EVENT_TIME
        if column is None or takes is None:
            remedy = suggestion(spot.field, self.columns) if spot.field else "Add `field`, or move it to the column"
            self.faults.add(spot.place, f"the rule {kind!r} names no column of the contract", remedy)
            return None
        if not takes(column):
            remedy = f"It takes {RULE_KINDS[kind].taken}; a rule of kind expression may do"
            self.faults.add(spot.place, f"the rule {kind!r} does not fit the type {column.name}", remedy)
            return None
        try:
            return _checked(kind, given, column, self.references)
        except ValueError as error:
            self.faults.add(spot.place, str(error), "Correct the rule's arguments")
            return None


def _checked(
    kind: str, given: dict[str, Any], column: ColumnType, references: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    """Give a rule's arguments in the form udfs.rules reads; raises ValueError when they are of no use."""
    if kind == "pattern":
        check_pattern(given["pattern"])
    elif kind in ("minimum", "maximum"):
        return {"value": limit(given["value"], column), "exclusive": bool(given.get("exclusive", False))}
    elif kind == "enum":
        return {"values": [bound(value, column) for value in given["values"]]}
    elif kind == "length":
        low, high = given.get("min"), given.get("max")
        if low is not None and high is not None and low > high:
            raise ValueError("no text is that short and that long")
        return {"min": low, "max": high}
    elif kind == "not_in_future":
        return {"skew_ms": parse_duration(given.get("skew", "0 s"))}
    elif kind == "freshness":
        return {"max_age_ms": parse_duration(given["maxAge"])}
    elif kind == "reference" and given["list"] not in references:
        raise ValueError(f"no list {given['list']!r} among the contract's `references`")
    return given


def read_column_rules(column: Mapping[str, Any], spot: Spot, keyed: bool, rules: Rules) -> None:
    """Note the rules that one column of a document declares, by the standard's fields and by quality entries."""
    declared = [entry for entry in column.get("quality") or [] if _is_null_check(entry)]
    # The key's rule, key_present, says the same; a nullValues entry says it with a name and an action of its own.
    if column.get("required") and not keyed and not declared:
        rules.add("required", {}, _inside(spot, "required"))
    if column.get("enum"):
        values = [entry["value"] for entry in column["enum"]]
        rules.add("enum", {"values": values}, _inside(spot, "enum"))
    for kind, arguments, option in _options(column.get("logicalTypeOptions") or {}, spot.place, rules.faults):
        rules.add(kind, arguments, _inside(spot, "logicalTypeOptions", option))
    read_quality(column, spot.field, spot.place, rules)


def _inside(spot: Spot, *parts: str | int) -> Spot:
    return replace(spot, place=(*spot.place, *parts))


def _options(options: Mapping[str, Any], place: Place, faults: Faults) -> Iterator[tuple[str, dict[str, Any], str]]:
    for option, value in options.items():
        if option == "pattern":
            yield "pattern", {"pattern": value}, option
        elif option in ("minimum", "maximum"):
            yield option, {"value": value}, option
        elif option in ("exclusiveMinimum", "exclusiveMaximum"):
            yield option.removeprefix("exclusive").lower(), {"value": value, "exclusive": True}, option
        elif option not in INFORMATION and option not in SIZES:
            remedy = "Leave it out, or write a quality rule of kind expression"
            faults.add((*place, "logicalTypeOptions", option), f"Tidegate does not check {option!r}", remedy)
    sizes = {SIZES[option]: option for option in options if option in SIZES}
    if sizes:
        ends = {end: options[sizes[end]] if end in sizes else None for end in ("min", "max")}
        yield "length", ends, next(iter(sizes.values()))


def read_quality(holder: Mapping[str, Any], field: str | None, place: Place, rules: Rules) -> None:
    """Note the rules of the `quality` entries of a column, or of the table when `field` is None."""
    for index, entry in enumerate(holder.get("quality") or []):
        here = (*place, "quality", index)
        settings = settings_at(entry, here, "qualitySetting", rules.faults)
        action = settings["action"].value if "action" in settings else str(Action.QUARANTINE)
        kind, engine = entry.get("type", "library"), entry.get("engine")
        if action == EXTERNAL or kind == "text" or (kind == "custom" and engine != VENDOR):
            continue
        spot = Spot(here, field, action, _name(entry, here, rules.faults))
        if kind == "custom":
            _read_implementation(entry["implementation"], _inside(spot, "implementation"), rules)
        elif kind == "library" and "metric" in entry:
            _read_metric(entry, spot, rules)
        else:
            _beyond_a_row(f"a check of type {kind!r}", here, rules.faults)


def _name(entry: Mapping[str, Any], place: Place, faults: Faults) -> str | None:
    name: str | None = entry.get("name")
    if name is None or re.fullmatch(RULE_NAME, name):
        return name
    remedy = "Use at most 100 letters, digits, `_`, `.` and `-`; sentences go into `description`"
    faults.add((*place, "name"), "a rule's name goes into tables and metrics, and this one cannot", remedy)
    return None


def _read_implementation(written: Any, spot: Spot, rules: Rules) -> None:
    if not isinstance(written, dict):
        remedy = "Write `implementation: {kind: ...}`"
        rules.faults.add(spot.place, "a rule of engine tidegate is a mapping", remedy)
    elif valid(written, "implementation", spot.place, rules.faults):
        arguments = {key: value for key, value in written.items() if key not in ("kind", "field")}
        rules.add(written["kind"], arguments, replace(spot, field=written.get("field", spot.field)))


def _read_metric(entry: Mapping[str, Any], spot: Spot, rules: Rules) -> None:
    metric, arguments = entry["metric"], entry.get("arguments") or {}
    of_row = spot.field is not None and metric in ("nullValues", "missingValues", "invalidValues")
    if not of_row or isinstance(entry.get("mustBe"), bool) or entry.get("mustBe") != 0:
        _beyond_a_row(f"the metric {metric!r} with this threshold", spot.place, rules.faults)
    elif metric == "nullValues":
        rules.add("required", {}, spot)
    elif metric == "missingValues":
        missing = arguments.get("missingValues")
        sql = _present(str(spot.field), missing if isinstance(missing, list) else [])
        rules.add("expression", {"sql": sql}, replace(spot, name=spot.name or f"{spot.field}_missing"))
    else:
        _read_invalid(arguments, spot, rules)


def _present(field: str, missing: Sequence[Any]) -> str:
    """Give the SQL condition that a column has a value, and none of those that stand for a missing one."""
    quoted = '"' + field.replace('"', '""') + '"'
    texts = ["'" + str(value).replace("'", "''") + "'" for value in missing if value is not None]
    unlisted = f" AND CAST({quoted} AS VARCHAR) NOT IN ({', '.join(texts)})" if texts else ""
    return f"{quoted} IS NOT NULL{unlisted}"


def _read_invalid(arguments: Mapping[str, Any], spot: Spot, rules: Rules) -> None:
    known = {"validValues", "pattern"}
    for other in sorted(map(str, set(arguments) - known)):
        place = (*spot.place, "arguments", other)
        rules.faults.add(place, f"unknown argument {other!r}", suggestion(other, known))
    values, pattern = arguments.get("validValues"), arguments.get("pattern")
    if not isinstance(values, list) and not isinstance(pattern, str):
        remedy = "Add `validValues`, a list, or `pattern`, a regular expression"
        rules.faults.add(spot.place, "invalidValues says nothing about valid ones", remedy)
    if isinstance(values, list):
        rules.add("enum", {"values": values}, spot)
    if isinstance(pattern, str):
        both = f"{spot.name}_pattern" if spot.name and isinstance(values, list) else spot.name
        rules.add("pattern", {"pattern": pattern}, replace(spot, name=both))


def _beyond_a_row(what: str, place: Place, faults: Faults) -> None:
    remedy = "Give the entry the setting `action: external` when another tool checks the table, or write a row rule"
    faults.add(place, f"{what} needs more than one row", remedy)


def _is_null_check(entry: Mapping[str, Any]) -> bool:
    return entry.get("metric") == "nullValues" and entry.get("mustBe") == 0


def check_pattern(pattern: str) -> None:
    """Check that RE2 can read a regular expression; raises ValueError with its reason."""
    try:
        pc.match_substring_regex(pa.array([""]), f"^(?:{pattern})$")
    except pa.ArrowInvalid as error:
        raise ValueError(f"RE2 cannot read the regular expression ({error})") from None

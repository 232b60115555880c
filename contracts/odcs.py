"""Checks a document against the JSON Schema of ODCS v3.2 and gives the settings that are Tidegate's own."""

from __future__ import annotations

import copy
import difflib
import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jsonschema import Draft201909Validator, ValidationError

from contracts.document import Document
from contracts.faults import Faults, Place

VENDOR = "tidegate"
LONGEST_MESSAGE = 160  # characters of a JSON Schema message, which repeats what it was given
UNKNOWN_NAME = frozenset({"additionalProperties", "unevaluatedProperties"})  # violations that do not hide what is known


@dataclass(frozen=True)
class Setting:
    """The value of one of Tidegate's own settings and the place where it stands."""

    value: Any
    place: Place


Settings = Mapping[str, Setting]


def check_standard(document: Document, faults: Faults) -> bool:
    """Note every violation of ODCS; gives whether what is there is where it belongs, so that it can be read on."""
    if not isinstance(document.value, dict):
        faults.add((), "a contract is a mapping of names to values", "Begin with `apiVersion: v3.2.0`")
        return False
    readable = True
    # Without a logicalType every conditional part of the standard's schema applies: one fault is enough.
    whole = copy.deepcopy(document.value)
    untyped = [(place, column) for place, column in columns_of(whole) if "logicalType" not in column]
    for place, column in untyped:
        faults.add(place, "the column has no logicalType", "Add one, such as `logicalType: string`")
        column["logicalType"] = "string"
        column.pop("logicalTypeOptions", None)
    for error in _standard().iter_errors(whole):
        readable &= error.validator in UNKNOWN_NAME
        # The standard's schema says the same twice.
        if error.validator != "unevaluatedProperties" or tuple(error.absolute_path):
            _add(error, (), faults, "Correct it as the Open Data Contract Standard v3.2 says")
    if not str(document.value.get("apiVersion", "v3")).startswith("v3."):
        faults.add(("apiVersion",), "Tidegate reads version 3 of the standard", "Write `apiVersion: v3.2.0`")
    return readable


def columns_of(value: Any) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Give the columns of every table of a document that may be malformed, with their places."""
    for place, table in _items(value, "schema"):
        for inner, column in _items(table, "properties"):
            yield (*place, *inner), column


def settings_at(holder: Mapping[str, Any], place: Place, level: str, faults: Faults) -> Settings:
    """Give Tidegate's settings among the customProperties of one part of a document.

    `level` is a name in tidegate.schema.json: contractSetting, columnSetting, qualitySetting or slaSetting.
    """
    known = known_settings(level)
    settings: dict[str, Setting] = {}
    for inner, entry in _items(holder, "customProperties"):
        here = (*place, *inner)
        name, vendor = str(entry.get("property")), entry.get("vendor")
        if vendor != VENDOR:
            if vendor is None and name in known:
                faults.add(here, f"{name!r} has no vendor", f"Add `vendor: {VENDOR}`, or another one")
            continue
        if name not in known:
            faults.add((*here, "property"), f"unknown setting {name!r}", suggestion(name, known))
        elif name in settings:
            faults.add((*here, "property"), f"the setting {name!r} is given twice", "Keep one of them")
        elif valid(entry.get("value"), known[name], (*here, "value"), faults):
            settings[name] = Setting(entry.get("value"), (*here, "value"))
    return settings


def valid(value: Any, definition: str, place: Place, faults: Faults) -> bool:
    """Check a value against one definition of tidegate.schema.json; notes every fault."""
    before = len(faults.found)
    for error in _part(definition).iter_errors(value):
        if error.validator == "enum" and isinstance(error.instance, str):
            choices = [choice for choice in error.validator_value if isinstance(choice, str)]
            remedy = suggestion(error.instance, choices)
            faults.add((*place, *error.absolute_path), f"unknown value {error.instance!r}", remedy)
        else:
            _add(error, place, faults, "See docs/contracts.md for what may stand here")
    return len(faults.found) == before


def suggestion(name: str, known: Iterable[str]) -> str:
    """Give the remedy for an unknown name: the nearest known one, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(names) or 'none here'}"


@functools.cache
def own_schema() -> dict[str, Any]:
    """Give tidegate.schema.json."""
    schema: dict[str, Any] = json.loads(
        resources.files("contracts").joinpath("tidegate.schema.json").read_text("utf-8")
    )
    return schema


@functools.cache
def known_settings(level: str) -> dict[str, str]:
    """Give the settings of a level: name -> definition in tidegate.schema.json."""
    then = own_schema()["$defs"][level]["then"]
    choices = then["anyOf"] if then else []
    parts = [choice["properties"] for choice in choices]
    return {part["property"]["const"]: part["value"]["$ref"].rsplit("/", 1)[1] for part in parts}


@functools.cache
def _standard() -> Draft201909Validator:
    text = resources.files("open_data_contract_standard").joinpath("schema.json").read_text("utf-8")
    return Draft201909Validator(json.loads(text))


@functools.cache
def _part(definition: str) -> Draft201909Validator:
    return Draft201909Validator({"$ref": f"#/$defs/{definition}", "$defs": own_schema()["$defs"]})


def _add(error: ValidationError, place: Place, faults: Faults, remedy: str) -> None:
    message = error.message
    if isinstance(error.schema, dict) and "x-message" in error.schema:
        message = error.schema["x-message"]
    elif len(message) > LONGEST_MESSAGE:
        message = f"the value does not meet {error.validator!r} of the schema"
    faults.add((*place, *error.absolute_path), message, remedy)


def _items(holder: Any, name: str) -> Iterator[tuple[Place, dict[str, Any]]]:
    items = holder.get(name) if isinstance(holder, dict) else None
    for index, item in enumerate(items if isinstance(items, list) else []):
        if isinstance(item, dict):
            yield (name, index), item

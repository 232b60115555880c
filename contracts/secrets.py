"""Finds what looks like a secret in a contract: contracts are read by everybody, keys and passwords are not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from contracts.document import Document
from contracts.faults import Faults, Place

REMEDY = "Take it out and replace it where it is used; secrets come from files or the environment"

_IN_VALUES = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@"
    r"|\b(?:password|passwd|secret|sasl\.jaas\.config)\s*=\s*\S"
    r"|\bAKIA[0-9A-Z]{16}\b",
)
_NAMES = re.compile(
    r"(?:^|[._-]|(?<=[a-z]))(?:password|passwd|secret|api[._-]?key|access[._-]?key|private[._-]?key)$", re.I
)


def find_secrets(document: Document, faults: Faults) -> None:
    """Note every place that holds something like a secret; the message never repeats it."""
    for place, value in _texts(document.value, ()):
        if _IN_VALUES.search(value):
            faults.add(place, "this looks like a secret", REMEDY)
        elif _names_a_secret(place) and value:
            faults.add(place, f"{place[-1]!r} looks like the name of a secret", REMEDY)
    for place, entry in _mappings(document.value, ()):
        if isinstance(entry.get("property"), str) and _NAMES.search(entry["property"]) and entry.get("value"):
            faults.add((*place, "property"), f"{entry['property']!r} looks like the name of a secret", REMEDY)


def _names_a_secret(place: Place) -> bool:
    return bool(place) and isinstance(place[-1], str) and bool(_NAMES.search(place[-1]))


def _texts(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield place, value
    for inner, part in _parts(value):
        yield from _texts(part, (*place, inner))


def _mappings(value: Any, place: Place) -> Iterator[tuple[Place, dict[str, Any]]]:
    if isinstance(value, dict):
        yield place, value
    for inner, part in _parts(value):
        yield from _mappings(part, (*place, inner))


def _parts(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)

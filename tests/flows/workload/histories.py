"""A history is the changelog of its source: a version for each change of a row, which ends as the next one begins."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

OP, PREVIOUS = "_op", "_previous"  # of a change: r, c, u, d or t (a truncate); JSON of the key its row had before
FOLLOWED, GONE = "as the next one begins", "with its row"
Row = Mapping[str, Any]
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Version:
    """What a row was, for a while."""

    says: str  # the values of its columns
    previous: str  # the key before
    ends: str | None = None


def versions_of(changes: Iterable[Row], key: Sequence[str], columns: Sequence[str]) -> dict[Key, list[Version]]:
    """Give each key's versions by the changes of its table, which are in the source's order."""
    found: dict[Key, list[Version]] = defaultdict(list)
    for change in changes:
        own = tuple(change[name] for name in key)
        ended = list(found) if change[OP] == "t" else [own]
        for one in ended:
            if found[one] and found[one][-1].ends is None:
                found[one][-1] = replace(found[one][-1], ends=FOLLOWED if change[OP] == "u" else GONE)
        if change[OP] in "rcu":
            found[own].append(Version(_said(change, columns), _key(change[PREVIOUS], key)))
    return {one: versions for one, versions in found.items() if versions}


def differences(
    changes: Iterable[Row], history: Iterable[Row], key: Sequence[str], columns: Sequence[str]
) -> list[str]:
    """Say where a history (its rows, in any order) is not what the changes make it, in words; nothing where it is."""
    wanted, found = versions_of(changes, key, columns), defaultdict(list)
    for row in history:
        found[tuple(row[name] for name in key)].append(row)
    told = []
    for own in sorted(wanted.keys() | found.keys(), key=repr):
        rows = sorted(found[own], key=lambda row: (row["_order_major"], row["_order_minor"]))
        told += [f"{own}: {what}" for what in _different(wanted.get(own, []), rows, key, columns)]
    return told


def _different(
    wanted: Sequence[Version], rows: Sequence[Row], key: Sequence[str], columns: Sequence[str]
) -> Iterator[str]:
    if len(wanted) != len(rows):
        yield f"{len(rows)} versions, the source made {len(wanted)}"
    for place, (version, row, following) in enumerate(zip(wanted, rows, [*rows[1:], None], strict=False)):
        if _said(row, columns) != version.says:
            yield f"version {place} says {_said(row, columns):.200}, the source said {version.says:.200}"
        if _key(row["_previous_key"], key) != version.previous:
            yield f"version {place} names the key before {row['_previous_key']}, the source {version.previous}"
        if row["_pending"]:
            yield f"version {place} lacks {row['_pending']}"
        if wrong := _wrong_end(row, following, version.ends):
            yield f"version {place} {wrong}"


def _wrong_end(row: Row, following: Row | None, ends: str | None) -> str | None:
    begin, end = row["_valid_from"], row["_valid_to"]
    if row["_is_current"] != (ends is None) or (end is None) != (ends is None):
        return f"ends at {end}, and should end {ends or 'never'}"
    if end is None:
        return None
    if end < begin:
        return f"ends at {end}, before it begins"
    if following is None:
        return None
    if end > following["_valid_from"] or (ends == FOLLOWED and end != following["_valid_from"]):
        return f"ends at {end}, and the next one begins at {following['_valid_from']}"
    return None


def _said(row: Row, columns: Sequence[str]) -> str:
    return repr([row[name] for name in columns])  # NaN equals itself


def _key(text: str | None, key: Sequence[str]) -> str:
    return "none" if text is None else repr([json.loads(text)[name] for name in key])

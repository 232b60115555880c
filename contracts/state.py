"""Reads the setting `state`: how a stream's current and history tables are kept, and which columns make a version."""

from __future__ import annotations

from typing import Any

from contracts.durations import parse_duration
from contracts.faults import Faults, Place
from contracts.fields import Columns
from contracts.masking import MASK_KINDS
from contracts.model import Contract, Derived, Field, StateTables, Storage, Truncate, Vanished
from contracts.odcs import Settings, suggestion


def read_state(settings: Settings, tables: tuple[str, ...], columns: Columns, faults: Faults) -> StateTables:
    """Give how the tables that know each key's last change are kept."""
    if "state" not in settings:
        return StateTables()
    written, place = settings["state"].value, settings["state"].place
    if not {"current", "history"} & set(tables):
        remedy = "Add `current`, `history` or both to the setting `tables`, or leave `state` out"
        faults.add(place, "the stream keeps no table that `state` is about", remedy)
    elif "tracked" in written and "history" not in tables:
        message = "'tracked' is about the table 'history', which the stream does not keep"
        faults.add((*place, "tracked"), message, "Add `history` to the setting `tables`, or leave `tracked` out")
    if "tracked" in written:
        for index, name in enumerate(written["tracked"]):
            _check_tracked(name, (*place, "tracked", index), columns, faults)
    default = StateTables()
    return StateTables(
        storage=Storage(written.get("storage", default.storage)),
        soft_deletes=written.get("deletes") == "soft",
        tracked=tuple(written["tracked"]) if "tracked" in written else None,
        delete_memory_ms=_memory(written, place, faults),
        truncate=Truncate(written.get("truncate", default.truncate)),
        vanished=Vanished(written.get("vanished", default.vanished) or "off"),  # YAML reads a bare off as false
        vanished_share=float(written.get("vanishedShare", default.vanished_share)),
        lanes=int(written.get("lanes", default.lanes)),
    )


def tracked_columns(contract: Contract) -> tuple[str, ...]:
    """Give the stored columns whose change makes a version in history, in table order.

    Key columns never change; a column whose mask gives the same value another token each time cannot be compared.
    """
    named = contract.state.tracked
    keys = {field.name for field in contract.key}
    columns: list[Field | Derived] = [*contract.fields, *contract.derived]
    names = [column.name for column in columns if column.name not in keys and _comparable(column)]
    return tuple(name for name in names if named is None or name in named)


def _memory(written: dict[str, Any], place: Place, faults: Faults) -> int:
    if "deleteMemory" not in written:
        return StateTables().delete_memory_ms
    remedy = "Write a number and a unit, such as `7 days`"
    try:
        memory = parse_duration(written["deleteMemory"])
    except ValueError as error:
        faults.add((*place, "deleteMemory"), str(error), remedy)
        return StateTables().delete_memory_ms
    if not memory:
        faults.add((*place, "deleteMemory"), "a late update would bring every deleted row back", remedy)
    return memory


def _check_tracked(name: str, place: Place, columns: Columns, faults: Faults) -> None:
    found = next((column for column in columns.all if column.name == name), None)
    if found is None:
        if name not in columns.untyped:
            remedy = suggestion(name, [column.name for column in columns.all])
            faults.add(place, f"the contract has no column {name!r} to track", remedy)
    elif isinstance(found, Field) and found.key_position is not None:
        remedy = "Leave it out: with another key a row is another one, which history always says"
        faults.add(place, f"the key's column {name!r} cannot be tracked", remedy)
    elif not _comparable(found):
        kind = found.mask.kind if found.mask else ""
        remedy = "Track another column, or mask it repeatably, such as with `hash`"
        faults.add(place, f"the column {name!r} cannot be tracked: its mask {kind!r} hides whether it changed", remedy)


def _comparable(column: Field | Derived) -> bool:
    kind = column.mask.kind if column.mask else None
    return kind is None or (kind != "drop" and MASK_KINDS[kind].repeatable)

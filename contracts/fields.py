"""Reads the columns of a contract: names, types, keys, privacy, masks, and columns derived by SQL."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from contracts.faults import Faults, Place
from contracts.masking import MASK_KINDS, read_mask
from contracts.model import Derived, Envelope, Field, Mask
from contracts.odcs import Settings, settings_at
from contracts.types import STORED, ColumnType, parse_type
from contracts.values import is_day, is_scalar

PRIVATE_CLASSES = frozenset({"private", "confidential", "restricted", "pii", "sensitive"})
PRIVATE_TAGS = frozenset({"pii", "private"})

# Types of PostgreSQL that Debezium does not send, or that no stored type can hold: never taken for an enum.
UNSUPPORTED = frozenset(
    {"box", "circle", "geography", "geometry", "line", "lseg", "path", "polygon", "pg_lsn", "tsquery", "vector",
     "halfvec", "sparsevec", "record", "refcursor", "xid", "tid"}
)  # fmt: skip

# Canonical type -> the logical types of ODCS that may stand beside it; text types: string.
LOGICAL: dict[str, frozenset[str]] = {
    **dict.fromkeys(("smallint", "integer", "bigint", "oid"), frozenset({"integer", "number"})),
    **dict.fromkeys(("real", "double precision", "money"), frozenset({"number"})),
    "numeric": frozenset({"number", "integer", "string"}),
    "interval": frozenset({"integer", "number", "string"}),
    "boolean": frozenset({"boolean"}),
    "bit": frozenset({"string", "boolean"}),
    "date": frozenset({"date"}),
    **dict.fromkeys(("time", "timetz"), frozenset({"time", "string"})),
    **dict.fromkeys(("timestamp", "timestamptz"), frozenset({"timestamp"})),
    **dict.fromkeys(("json", "jsonb"), frozenset({"object", "array", "map", "string"})),
    "hstore": frozenset({"object", "map", "string"}),
    "point": frozenset({"object"}),
    "array": frozenset({"array"}),
}

_OWN_NAME = re.compile(r'"?[a-z_][\w$]*"?(\."?[\w$ ]+"?)?', re.IGNORECASE)
_NAME_NOT_STORED = re.compile(r'[ ,;{}()\n\t="\x00-\x1f]')


@dataclass
class Columns:
    """The columns read from one contract, by kind, with the place and settings of each by name."""

    fields: list[Field]
    derived: list[Derived]
    partition_by: tuple[str, ...]
    places: dict[str, Place]
    settings: dict[str, Settings]
    written: dict[str, Mapping[str, Any]]
    untyped: set[str]  # columns whose type is a fault: nothing more can be said about them

    @property
    def types(self) -> dict[str, ColumnType]:
        """Give the type of each column that rules and expressions may name."""
        return {column.name: column.type for column in self.all}

    @property
    def all(self) -> tuple[Field | Derived, ...]:
        """Give the source's columns, then the derived ones."""
        return (*self.fields, *self.derived)


def read_columns(table: Mapping[str, Any], place: Place, envelope: Envelope, faults: Faults) -> Columns:
    """Read the columns of the contract's table; notes every fault and leaves faulty columns out."""
    columns = Columns([], [], (), {}, {}, {}, set())
    partitions: list[tuple[int, int, str]] = []
    for index, written in enumerate(table.get("properties") or []):
        here = (*place, "properties", index)
        name = written["name"]
        settings = settings_at(written, here, "columnSetting", faults)
        _check_name(name, columns.places, (*here, "name"), faults)
        columns.places.setdefault(name, here)
        columns.settings.setdefault(name, settings)
        columns.written.setdefault(name, written)
        kind = _type(written, here, faults)
        if kind is None:
            columns.untyped.add(name)
            if _is_private(written) and "mask" not in settings:
                _unmasked(f"the column {name!r} is private", here, faults)
            continue
        if "timeUnit" in settings and not (envelope is Envelope.PLAIN and (is_day(kind) or kind.name == "time")):
            remedy = "Leave it out: Debezium's numbers have the unit of the source type"
            faults.add(settings["timeUnit"].place, "timeUnit is for date and time columns of plain events", remedy)
        if written.get("transformLogic"):
            columns.derived.append(_derived(written, kind, settings, here, faults))
        else:
            columns.fields.append(_field(written, kind, settings, envelope, here, faults))
        if written.get("partitioned"):
            partitions.append((written.get("partitionKeyPosition", -1), index, name))
    columns.partition_by = tuple(name for _, _, name in sorted(partitions))
    _check_key(columns, faults)
    _check_partitions(columns, faults)
    _check_sources(columns, faults)
    return columns


def _field(  # noqa: PLR0917 (what one column of a document is read with)
    written: Mapping[str, Any], kind: ColumnType, settings: Settings, envelope: Envelope, place: Place, faults: Faults
) -> Field:
    keyed = bool(written.get("primaryKey"))
    position = written.get("primaryKeyPosition", -1)
    unit = settings["timeUnit"].value if "timeUnit" in settings else None
    mask = _mask(kind, settings, keyed, faults)
    private = _is_private(written)
    if private and mask is None:
        _unmasked(f"the column {written['name']!r} is private", place, faults)
    return Field(
        name=written["name"],
        source=written.get("physicalName") or written["name"],
        type=kind,
        aliases=tuple(settings["aliases"].value) if "aliases" in settings else (),
        required=bool(written.get("required")),
        key_position=(position if position > 0 else 1) if keyed else None,
        private=private or mask is not None,
        mask=mask,
        generated=_is_generated(written, settings, envelope, faults),
        time_unit=unit,
    )


def _is_generated(written: Mapping[str, Any], settings: Settings, envelope: Envelope, faults: Faults) -> bool:
    if "generated" not in settings or not settings["generated"].value:
        return False
    why = None
    if written.get("primaryKey"):
        why = "is part of the key"
    elif written.get("required"):
        why = "is required, which no streamed change would meet"
    elif envelope is Envelope.PLAIN:
        why = "stands in plain events, which hold it or not as they like"
    if why is not None:
        remedy = "Leave `generated` out, or derive the column with `transformLogic`"
        faults.add(settings["generated"].place, f"the generated column {written['name']!r} {why}", remedy)
    return True


def _derived(written: Mapping[str, Any], kind: ColumnType, settings: Settings, place: Place, faults: Faults) -> Derived:
    if written.get("primaryKey"):
        faults.add((*place, "primaryKey"), "a derived column cannot be part of the key", "Leave primaryKey out")
    for name in sorted(set(settings) & {"aliases", "generated", "timeUnit", "plainStorage"}):
        faults.add(settings[name].place, f"{name!r} says nothing about a derived column", "Leave it out")
    mask = _mask(kind, settings, False, faults)
    private = _is_private(written)
    if private and mask is None:
        _unmasked(f"the derived column {written['name']!r} is private", place, faults)
    return Derived(written["name"], kind, written["transformLogic"], private or mask is not None, mask)


def _mask(kind: ColumnType, settings: Settings, keyed: bool, faults: Faults) -> Mask | None:
    if "mask" not in settings:
        return None
    return read_mask(settings["mask"].value, kind, keyed, settings["mask"].place, faults)


def _unmasked(what: str, place: Place, faults: Faults) -> None:
    remedy = "Add the setting `mask`, such as `value: {kind: drop}`; docs/contracts.md lists the kinds"
    faults.add(place, f"{what} and has no mask", remedy)


def _is_private(written: Mapping[str, Any]) -> bool:
    classes = {str(written.get("classification", "")).strip().lower()}
    tags = {word for tag in written.get("tags") or [] for word in re.split(r"[^a-z0-9]+", tag.lower())}
    return bool(classes & PRIVATE_CLASSES or tags & PRIVATE_TAGS)


def _type(written: Mapping[str, Any], place: Place, faults: Faults) -> ColumnType | None:
    declared = written.get("physicalType")
    if not declared:
        remedy = "Add the source's type, such as `physicalType: text` or `numeric(12,2)`"
        faults.add(place, f"the column {written['name']!r} has no physicalType", remedy)
        return None
    try:
        kind = parse_type(declared)
    except ValueError as error:
        enumeration = _enumeration(declared, written)
        if enumeration is None:
            faults.add((*place, "physicalType"), str(error).partition(";")[0], _type_remedy(declared))
            return None
        kind = enumeration
    logical = LOGICAL.get(kind.name, frozenset({"string"}))
    if "logicalType" in written and written["logicalType"] not in logical:
        message = f"logicalType {written['logicalType']!r} does not go with physicalType {declared!r}"
        faults.add((*place, "logicalType"), message, f"Write {' or '.join(sorted(logical))}")
    return kind


def _enumeration(declared: str, written: Mapping[str, Any]) -> ColumnType | None:
    """Give the type of a column whose declared type is the source's own enum, or an array of it."""
    base = declared.strip().removesuffix("[]").strip()
    is_array = declared.strip().endswith("[]")
    logical = (written.get("items") or {}).get("logicalType") if is_array else written.get("logicalType")
    if logical != "string" or not _OWN_NAME.fullmatch(base) or base.lower() in UNSUPPORTED:
        return None
    # A misspelt type must not pass for an enum.
    if difflib.get_close_matches(base.lower(), STORED, n=1, cutoff=0.8):
        return None
    enum = ColumnType("enum", pa.string())
    return ColumnType("array", pa.list_(pa.string()), element=enum) if is_array else enum


def _type_remedy(declared: str) -> str:
    near = difflib.get_close_matches(declared.partition("(")[0].lower(), STORED, n=1)
    if near:
        return f"Did you mean {near[0]!r}?"
    return "Use a type of docs/contracts.md; the name of an enum type needs `logicalType: string`"


def storable_name(name: str) -> bool:
    """Whether a table can have a column of this name."""
    return bool(name) and not name.startswith("_") and not _NAME_NOT_STORED.search(name)


def _check_name(name: str, known: Mapping[str, Place], place: Place, faults: Faults) -> None:
    if name.startswith("_"):
        faults.add(place, f"the column name {name!r} begins with an underscore", "Such names are Tidegate's own")
    elif _NAME_NOT_STORED.search(name) or not name:
        remedy = "Choose a plain name, and put the message's into `physicalName`"
        faults.add(place, f"the column name {name!r} holds a character that Delta tables refuse", remedy)
    if name.lower() in {other.lower() for other in known}:
        faults.add(place, f"a second column is named {name!r}", "Rename one; letter case makes no difference")


def _check_key(columns: Columns, faults: Faults) -> None:
    keyed = [field for field in columns.fields if field.key_position is not None]
    positions = [field.key_position for field in keyed]
    for field in keyed:
        if positions.count(field.key_position) > 1:
            remedy = "Give each key column its primaryKeyPosition: 1, 2, 3"
            place = (*columns.places[field.name], "primaryKeyPosition")
            faults.add(place, f"two key columns have the position {field.key_position}", remedy)


def _check_partitions(columns: Columns, faults: Faults) -> None:
    for column in columns.all:
        if column.name not in columns.partition_by:
            continue
        place = (*columns.places[column.name], "partitioned")
        mask = column.mask.kind if column.mask else None
        if mask == "drop" or (mask and not MASK_KINDS[mask].repeatable):
            remedy = "Partition by another column, or mask it repeatably"
            faults.add(place, f"tables cannot be partitioned by a column with the mask {mask!r}", remedy)
        if not is_scalar(column.type) or pa.types.is_floating(column.type.arrow) or column.type.name == "bytea":
            remedy = "Partition by text, integers, dates or booleans"
            faults.add(place, f"tables cannot be partitioned by the type {column.type.name}", remedy)


def _check_sources(columns: Columns, faults: Faults) -> None:
    """Note message names that two columns claim."""
    owners: dict[str, str] = {}
    for field in columns.fields:
        for source in dict.fromkeys((field.source, *field.aliases)):
            owner = owners.setdefault(source, field.name)
            if owner != field.name:
                message = f"the columns {owner!r} and {field.name!r} both read the message field {source!r}"
                faults.add(columns.places[field.name], message, "Let one column have it, derive the other")


def may_be_unset(field: Field, full_identity: bool, settings: Settings) -> bool:
    """Whether an update's message may leave the field's value out, because PostgreSQL stored it apart (TOAST).

    Values of less than 24 bytes never are: that covers numeric of up to 24 digits and varchar(5).
    """
    kind = field.type
    if full_identity or field.key_position is not None or not kind.toastable:
        return False
    if "plainStorage" in settings and settings["plainStorage"].value:
        return False
    limit = {"numeric": 24, "varchar": 5, "char": 5, "bit": 64, "varbit": 64}.get(kind.name)
    return limit is None or kind.precision is None or kind.precision > limit

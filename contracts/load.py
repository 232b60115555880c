"""Loads contract files: ODCS documents in, the frozen Contract that the rest of Tidegate reads out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.aggregates import read_aggregates
from contracts.conflicts import find_conflicts
from contracts.document import Document, read_document
from contracts.faults import ContractError, Fault, Faults, Place
from contracts.fields import Columns, read_columns
from contracts.model import Contract, Encoding, Envelope, PayloadPolicy, UnknownFields, Unrepresentable
from contracts.odcs import Settings, check_standard, settings_at
from contracts.quality import Rules, Spot, read_column_rules, read_quality
from contracts.secrets import find_secrets
from contracts.settings import (
    read_event_time,
    read_identity,
    read_references,
    read_registry,
    read_start,
    read_tables,
    read_topics,
)
from contracts.sla import read_service_levels
from contracts.sql import check_expressions
from contracts.state import read_state

SUFFIXES = (".odcs.yaml", ".odcs.yml")
TABLE = ("schema", 0)
STREAM_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")


def load_contract(path: str | Path, environment: Mapping[str, str] | None = None) -> Contract:
    """Load one contract file; `environment` gives the values of ${NAME} in topics and registry address.

    Raises ContractError with every fault of the file.
    """
    contract, faults = _read(Path(path), environment or {})
    if faults or contract is None:
        raise ContractError(faults)
    return contract


def load_contracts(directory: str | Path, environment: Mapping[str, str] | None = None) -> tuple[Contract, ...]:
    """Load all `*.odcs.yaml` files of a directory and below, by stream name.

    Raises ContractError with every fault of every file, also those that only several files together have.
    """
    root = Path(directory)
    paths = sorted(path for path in root.rglob("*") if path.name.endswith(SUFFIXES) and path.is_file())
    read = [_read(path, environment or {}) for path in paths]
    faults = [fault for _, found in read for fault in found]
    contracts = tuple(sorted((c for c, _ in read if c is not None), key=lambda contract: contract.stream))
    faults += find_conflicts(contracts)
    if not paths:
        faults.append(Fault(str(directory), 0, "", "there is no contract here", "Contracts are files *.odcs.yaml"))
    if faults:
        raise ContractError(faults)
    return contracts


def _read(path: Path, environment: Mapping[str, str]) -> tuple[Contract | None, list[Fault]]:
    """Give the contract of a file where it can be told, and all faults of the file."""
    try:
        document = read_document(path)
    except ContractError as error:
        return None, list(error.faults)
    faults = Faults(document.file, document.lines)
    try:
        find_secrets(document, faults)
        readable = check_standard(document, faults)
        return _contract(document, environment, faults) if readable else None, faults.found
    except RecursionError:
        faults.add((), "the contract is nested too deeply", "A contract needs about ten levels")
        return None, faults.found


def _contract(document: Document, environment: Mapping[str, str], faults: Faults) -> Contract | None:
    value = document.value
    settings = settings_at(value, (), "contractSetting", faults)
    table = _table(value, faults)
    if table is None:
        return None
    columns = read_columns(table, TABLE, Envelope(_plain(settings, "envelope", "debezium")), faults)
    rules = _rules(value, table, columns, settings, faults)
    topics, pattern = read_topics(table, settings, environment, faults)
    payload, key_id = _payload(settings, faults)
    start, start_ms = read_start(settings, faults)
    tables = read_tables(settings, any(f.key_position for f in columns.fields), faults)
    state = read_state(settings, tables, columns, faults)
    event_time = read_event_time(settings, columns, faults)
    contract = Contract(
        stream=table["name"],
        version=str(value["version"]),
        file=document.file,
        encoding=Encoding(_plain(settings, "encoding", "json")),
        envelope=Envelope(_plain(settings, "envelope", "debezium")),
        fields=tuple(columns.fields),
        topics=topics,
        topic_pattern=pattern,
        registry=read_registry(settings, environment, faults),
        full_identity=read_identity(settings, faults),
        event_time=event_time,
        tables=tables,
        state=state,
        aggregates=read_aggregates(settings, tables, state.lanes, columns, faults),
        rules=tuple(rules.rules),
        unknown_fields=UnknownFields(_plain(settings, "unknownFields", "ignore")),
        unrepresentable=Unrepresentable(_plain(settings, "unrepresentable", "null") or "null"),
        partition_by=columns.partition_by,
        row_filter=_plain(settings, "rowFilter", None),
        derived=tuple(columns.derived),
        payload=payload,
        payload_key_id=key_id,
        start=start,
        start_timestamp_ms=start_ms,
        references=dict(rules.references),
        sla=read_service_levels(value, table["name"], event_time, faults),
    )
    _check_order(contract, settings, faults)
    check_expressions(contract, columns, rules, settings, faults)
    return contract


def _check_order(contract: Contract, settings: Settings, faults: Faults) -> None:
    """Note a stream whose newest change of a key nothing tells: offsets of two topics do not compare."""
    several = contract.topic_pattern is not None or len(contract.topics) > 1
    if contract.keeps_state and contract.envelope is Envelope.PLAIN and several:
        message = "which of two plain events of a key is the newer is told by their offsets in one topic only"
        remedy = "Read one topic, or keep `changes` and `quarantine` alone"
        faults.add(settings["tables"].place, message, remedy)


def _table(value: Mapping[str, Any], faults: Faults) -> Mapping[str, Any] | None:
    """Give the one table of the document."""
    tables = value.get("schema") or []
    if len(tables) != 1:
        remedy = "Write one file for each stream"
        faults.add(("schema",), f"a contract describes one stream; this one has {len(tables)} tables", remedy)
        return None
    table: Mapping[str, Any] = tables[0]
    if not STREAM_NAME.fullmatch(table["name"]):
        remedy = "Use small letters, digits and underscores, a letter first, at most 100; tables are named after it"
        faults.add((*TABLE, "name"), f"{table['name']!r} is no stream name", remedy)
    settings_at(table, TABLE, "tableSetting", faults)
    return table


def _rules(
    value: Mapping[str, Any], table: Mapping[str, Any], columns: Columns, settings: Settings, faults: Faults
) -> Rules:
    """Give all rules: the key's own, those of each column, of the table, and of service levels with an action."""
    rules = Rules(columns.types, read_references(settings), faults, columns.untyped)
    keys = {field.name for field in columns.fields if field.key_position is not None}
    if keys:
        rules.add("key_present", {}, Spot(TABLE, None, "quarantine"))
    for name in columns.types:
        action = _plain(columns.settings[name], "action", "quarantine")
        spot = Spot(columns.places[name], name, action)
        read_column_rules(columns.written[name], spot, name in keys, rules)
    read_quality(table, None, TABLE, rules)
    for index, level in enumerate(value.get("slaProperties") or []):
        _read_service_level(level, table["name"], ("slaProperties", index), rules)
    return rules


def _read_service_level(level: Mapping[str, Any], stream: str, place: Place, rules: Rules) -> None:
    """Note the freshness rule of a service level that has an action; those without are read in contracts.sla."""
    settings = settings_at(level, place, "slaSetting", rules.faults)
    if "action" not in settings:
        return
    if str(level["property"]).lower() != "latency" or not level.get("element"):
        remedy = "Give the action to `property: latency` with an `element`, a column of the contract"
        rules.faults.add(place, "only the latency of a column can have an action", remedy)
        return
    field = str(level["element"]).removeprefix(f"{stream}.")
    age = f"{level['value']} {level.get('unit') or 'd'}"
    rules.add("freshness", {"maxAge": age}, Spot(place, field, settings["action"].value))


def _payload(settings: Settings, faults: Faults) -> tuple[PayloadPolicy, str | None]:
    """Give what quarantine rows keep of a record, and the id of the key that encrypts it."""
    if "quarantine" not in settings:
        return PayloadPolicy.MASKED, None
    written, place = settings["quarantine"].value, settings["quarantine"].place
    payload = PayloadPolicy(written.get("payload", "masked"))
    if payload is PayloadPolicy.ENCRYPTED and "keyId" not in written:
        faults.add(place, "an encrypted payload needs a key", "Add `keyId`, the id of a key of the key file")
    if payload is not PayloadPolicy.ENCRYPTED and "keyId" in written:
        faults.add((*place, "keyId"), f"the payload policy {payload!s} uses no key", "Leave keyId out")
    return payload, written.get("keyId")


def _plain(settings: Settings, name: str, default: Any) -> Any:
    return settings[name].value if name in settings else default

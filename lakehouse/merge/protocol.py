"""What a Delta table may ask of its writers: everything that this writer does not keep is refused, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pyarrow as pa

from lakehouse.errors import TableRefused

VECTORS = "deletionVectors"
NTZ = "timestampNtz"
ENABLE_VECTORS = "delta.enableDeletionVectors"
READER, WRITER = 3, 7  # versions that list their features by name

READER_FEATURES = frozenset({VECTORS, NTZ, "columnMapping", "vacuumProtocolCheck", "variantType"})
# Features that may be listed; whether the table uses them is seen from its properties and its columns below.
WRITER_FEATURES = READER_FEATURES | {
    "appendOnly", "invariants", "checkConstraints", "changeDataFeed", "generatedColumns", "identityColumns",
    "domainMetadata",
}  # fmt: skip
# Property -> the values with which it is not used.
UNUSED = {
    "delta.appendOnly": {"false"},
    "delta.enableChangeDataFeed": {"false"},
    "delta.columnMapping.mode": {"none"},
    "delta.enableRowTracking": {"false"},
    "delta.enableInCommitTimestamps": {"false"},
    "delta.checkpointPolicy": {"classic"},
}
COLUMN_METADATA = ("delta.invariants", "delta.generationExpression", "delta.identity.", "delta.columnMapping.")
UNKNOWN_TYPES = frozenset({"variant", "void", "interval"})


def protocol_for(columns: pa.Schema) -> dict[str, Any]:
    """Give the protocol action of a table of ours."""
    features = [VECTORS, *([NTZ] if any(_has_ntz(field.type) for field in columns) else [])]
    versions = {"minReaderVersion": READER, "minWriterVersion": WRITER}
    return {**versions, "readerFeatures": features, "writerFeatures": features}


def widened(protocol: Mapping[str, Any], columns: pa.Schema) -> dict[str, Any] | None:
    """Give the protocol with the features that columns need beside those it has; None when it has them."""
    wanted = protocol_for(columns)["readerFeatures"]
    if set(wanted) <= set(protocol["readerFeatures"]) & set(protocol["writerFeatures"]):
        return None
    both = {name: sorted({*protocol[name], *wanted}) for name in ("readerFeatures", "writerFeatures")}
    return {**protocol, **both}


def verify_protocol(table: str, protocol: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Raise TableRefused when the table asks for something that this writer does not do; lists all of it."""
    problems = [*_features(protocol), *_properties(metadata), *_columns(metadata)]
    if problems:
        raise TableRefused(
            f"table {table} cannot be written merge-on-read: {'; '.join(problems)}. Drop the feature from the table, "
            "or set `storage: copy-on-write` in the contract, or move the stream's tables away to build them again."
        )


def verify_rewritable(table: str, protocol: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Raise TableRefused when files of the table cannot be rewritten as they stand, whoever writes it; lists why.

    Unlike verify_protocol it lets tables without deletion vectors pass.
    """
    listed = {*(protocol.get("readerFeatures") or ()), *(protocol.get("writerFeatures") or ())}
    unknown = sorted(listed - WRITER_FEATURES)
    problems = [f"features that this writer does not know: {', '.join(unknown)}"] if unknown else []
    problems += [*_properties(metadata), *_columns(metadata)]
    if problems:
        raise TableRefused(f"table {table} is left as it is: {'; '.join(problems)}. Let its other writer maintain it.")


def _features(protocol: Mapping[str, Any]) -> Iterator[str]:
    versions = protocol["minReaderVersion"], protocol["minWriterVersion"]
    if versions != (READER, WRITER):
        yield f"its protocol is {versions[0]}/{versions[1]}, not {READER}/{WRITER} with the feature {VECTORS}"
        return
    reader, writer = set(protocol.get("readerFeatures") or ()), set(protocol.get("writerFeatures") or ())
    if VECTORS not in reader & writer:
        yield f"it lacks the feature {VECTORS}"
    unknown = (reader - READER_FEATURES) | (writer - WRITER_FEATURES)
    if unknown:
        yield f"features that this writer does not know: {', '.join(sorted(unknown))}"


def _properties(metadata: Mapping[str, Any]) -> Iterator[str]:
    configuration: Mapping[str, str] = metadata.get("configuration") or {}
    for name, unused in UNUSED.items():
        value = configuration.get(name)
        if value is not None and value.lower() not in unused:
            yield f"property {name} is {value}"
    constraints = sorted(name for name in configuration if name.startswith("delta.constraints."))
    if constraints:
        yield f"check constraints: {', '.join(constraints)}"


def _columns(metadata: Mapping[str, Any]) -> Iterator[str]:
    for path, field in _fields(orjson.loads(metadata["schemaString"])):
        found = [key for key in field.get("metadata") or {} if key.startswith(COLUMN_METADATA)]
        if found:
            yield f"column {path} has {', '.join(found)}"
        if field["type"] in UNKNOWN_TYPES if isinstance(field["type"], str) else False:
            yield f"column {path} is of type {field['type']}"


def _fields(kind: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every field of a type with its path: of structs, and of structs in arrays and maps."""
    if not isinstance(kind, dict):
        return
    for field in kind.get("fields", ()):
        own = f"{path}.{field['name']}" if path else field["name"]
        yield own, field
        yield from _fields(field["type"], own)
    for inner in ("elementType", "keyType", "valueType"):
        yield from _fields(kind.get(inner), path)


def _has_ntz(kind: pa.DataType) -> bool:
    if pa.types.is_timestamp(kind):
        return kind.tz is None
    return any(_has_ntz(kind.field(i).type) for i in range(kind.num_fields))

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
# Features that older writer versions mean without naming them, and the first such version.
LEGACY = {
    "appendOnly": 2, "invariants": 2, "checkConstraints": 3, "changeDataFeed": 4, "generatedColumns": 4,
    "columnMapping": 5, "identityColumns": 6,
}  # fmt: skip
LEGACY_WRITER, LEGACY_MAPPING = 2, 2

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


def protocol_for(columns: pa.Schema, *, vectors: bool = True) -> dict[str, Any]:
    """Give the protocol action of a new table of ours: no more than its columns, and vectors where wanted, need."""
    features = [*([VECTORS] if vectors else []), *_needed(columns)]
    return _protocol(set(features), set(features))


def vectored(protocol: Mapping[str, Any]) -> bool:
    """Say whether files of the table may have deletion vectors: readers that know none refuse it then."""
    reader, writer = _listed(protocol)
    return VECTORS in reader & writer


def widened(protocol: Mapping[str, Any], columns: pa.Schema) -> dict[str, Any] | None:
    """Give the protocol with the features that columns need beside those it has; None when it has them."""
    wanted, (reader, writer) = set(_needed(columns)), _listed(protocol)
    return None if wanted <= reader & writer else _protocol(reader | wanted, writer | wanted)


def changed_storage(protocol: Mapping[str, Any], *, vectors: bool) -> dict[str, Any]:
    """Give the protocol with deletion vectors, or without them; everything else in it stays."""
    reader, writer = _listed(protocol)
    if vectors:
        return _protocol(reader | {VECTORS}, writer | {VECTORS})
    return _protocol(reader - {VECTORS}, writer - {VECTORS})


def _protocol(reader: set[str], writer: set[str]) -> dict[str, Any]:
    """Give the lowest protocol that has the features."""
    if not reader and all(LEGACY.get(name) == LEGACY_WRITER for name in writer):
        return {"minReaderVersion": 1, "minWriterVersion": LEGACY_WRITER}
    if not reader:
        return {"minReaderVersion": 1, "minWriterVersion": WRITER, "writerFeatures": sorted(writer)}
    versions = {"minReaderVersion": READER, "minWriterVersion": WRITER}
    return {**versions, "readerFeatures": sorted(reader), "writerFeatures": sorted(writer)}


def _listed(protocol: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Give the features for readers and for writers, also those that an old version means without naming them."""
    version = protocol["minWriterVersion"]
    reader, writer = set(protocol.get("readerFeatures") or ()), set(protocol.get("writerFeatures") or ())
    if version < WRITER:
        writer |= {name for name, since in LEGACY.items() if since <= version}
    if protocol["minReaderVersion"] == LEGACY_MAPPING:
        reader.add("columnMapping")
    return reader, writer


def verify_protocol(table: str, protocol: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Raise TableRefused when the table asks for something that this writer does not do; lists all of it.

    A table without deletion vectors passes: it is written copy-on-write.
    """
    if problems := _problems(protocol, metadata):
        raise TableRefused(
            f"table {table} cannot be written: {'; '.join(problems)}. Drop the feature from the table, or move the "
            "stream's tables away to build them again."
        )


def verify_rewritable(table: str, protocol: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Raise TableRefused when files of the table cannot be rewritten as they stand, whoever writes it; lists why."""
    if problems := _problems(protocol, metadata):
        raise TableRefused(f"table {table} is left as it is: {'; '.join(problems)}. Let its other writer maintain it.")


def _problems(protocol: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[str]:
    return [*_features(protocol), *_properties(metadata), *_columns(metadata)]


def _features(protocol: Mapping[str, Any]) -> Iterator[str]:
    versions = protocol["minReaderVersion"], protocol["minWriterVersion"]
    if versions[0] > READER or versions[1] > WRITER:
        yield f"its protocol is {versions[0]}/{versions[1]}, this writer knows those up to {READER}/{WRITER}"
        return
    reader, writer = _listed(protocol)
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


def _needed(columns: pa.Schema) -> list[str]:
    return [NTZ] if any(_has_ntz(field.type) for field in columns) else []


def _has_ntz(kind: pa.DataType) -> bool:
    if pa.types.is_timestamp(kind):
        return kind.tz is None
    return any(_has_ntz(kind.field(i).type) for i in range(kind.num_fields))

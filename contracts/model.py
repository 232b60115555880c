"""The frozen, typed view of a stream contract: all that the rest of Tidegate knows about a stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from contracts.types import ColumnType

Arguments = Mapping[str, Any]


class Encoding(StrEnum):
    """How a record's key and value are written."""

    JSON = "json"  # schemaless JSON
    JSON_SCHEMA = "json-schema"  # Kafka Connect JSON with {"schema", "payload"}
    AVRO = "avro"  # Confluent framing: 0, 4-byte schema id, datum


class Envelope(StrEnum):
    """What a record's value means."""

    DEBEZIUM = "debezium"  # a change event: before, after, source, op
    PLAIN = "plain"  # one event, the fields at the top level


class Action(StrEnum):
    """What happens to a row that breaks a rule."""

    WARN = "warn"  # kept, the rule is named in _violations
    QUARANTINE = "quarantine"
    DROP = "drop"  # counted, not kept
    FAIL = "fail"  # the stream stops and says which record


class UnknownFields(StrEnum):
    """What happens to message fields that the contract does not name."""

    IGNORE = "ignore"
    KEEP = "keep"  # together, as JSON text, in the column _extra
    QUARANTINE = "quarantine"
    ADD = "add"  # as columns of their own where the encoding says the type, else as KEEP


class Unrepresentable(StrEnum):
    """What happens to a value that the stored type cannot hold (infinity, year 12000, numeric NaN)."""

    NULL = "null"  # stored as null, named in _flags
    QUARANTINE = "quarantine"


class PayloadPolicy(StrEnum):
    """What a quarantine row keeps of the record."""

    NONE = "none"
    MASKED = "masked"  # the readable fields as JSON after their masks; nothing when they cannot be read
    ENCRYPTED = "encrypted"  # the raw bytes, AES-GCM


class Start(StrEnum):
    """Where a stream without progress begins."""

    EARLIEST = "earliest"
    LATEST = "latest"
    TIMESTAMP = "timestamp"


class Storage(StrEnum):
    """How the tables that hold one row per key, or per version of a key, are written."""

    MERGE_ON_READ = "merge-on-read"  # new rows are appended, old ones marked in deletion vectors
    COPY_ON_WRITE = "copy-on-write"  # files that hold an old row are written again: for readers without vectors


class Truncate(StrEnum):
    """What a TRUNCATE of the source does to current and history."""

    FAIL = "fail"  # the stream stops and says so
    IGNORE = "ignore"
    APPLY = "apply"  # what is older than the truncate is removed, whenever it arrives


class Vanished(StrEnum):
    """What happens to rows that a new snapshot no longer holds (deleted while the connector was down)."""

    OFF = "off"
    REPORT = "report"
    DELETE = "delete"


class WindowType(StrEnum):
    """How an aggregate cuts time into windows, aligned to the epoch in UTC."""

    TUMBLE = "tumble"  # one after the other
    HOP = "hop"  # of one size, beginning every slide
    CUMULATE = "cumulate"  # from one beginning, longer by a step up to the size
    SESSION = "session"  # of a group's rows, until none came for a gap


class Over(StrEnum):
    """What an aggregate counts."""

    CHANGES = "changes"  # change events
    CURRENT = "current"  # the rows that current holds


@dataclass(frozen=True)
class StateTables:
    """How a stream's current and history tables are kept."""

    storage: Storage = Storage.MERGE_ON_READ
    soft_deletes: bool = False  # a deleted row stays in current, with _deleted
    tracked: tuple[str, ...] | None = None  # columns whose change makes a version in history; None: all
    delete_memory_ms: int = 7 * 24 * 3_600_000  # how long a late change can still be told from a new row
    truncate: Truncate = Truncate.FAIL
    vanished: Vanished = Vanished.REPORT
    vanished_share: float = 0.1  # of the table's rows that a snapshot may remove at most
    lanes: int = 1  # parallel committers


@dataclass(frozen=True)
class Mask:
    """One field's mask: its kind (a name in udfs.masks.MASKS), its arguments and the id of its key."""

    kind: str
    arguments: Arguments = dataclasses.field(default_factory=dict)
    key_id: str | None = None


@dataclass(frozen=True)
class Rule:
    """One quality rule: its kind (a name in udfs.rules.RULES), its field and what follows when it is broken."""

    name: str  # unique in the contract
    kind: str
    action: Action
    field: str | None = None  # None: the rule reads the whole row
    arguments: Arguments = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Field:
    """One column of the source and of the tables."""

    name: str  # in the tables
    source: str  # in the message
    type: ColumnType
    aliases: tuple[str, ...] = ()  # earlier or later names in the message
    required: bool = False
    key_position: int | None = None  # 1, 2, ... in the key
    private: bool = False
    mask: Mask | None = None
    generated: bool = False  # computed by the source: in its snapshots, not in its streamed changes
    time_unit: str | None = None  # of a plain event's number: s, ms, us; None: ISO 8601 text, or as Debezium says

    @property
    def dropped(self) -> bool:
        """Whether the field reaches no table at all."""
        return self.mask is not None and self.mask.kind == "drop"


@dataclass(frozen=True)
class Derived:
    """A column computed from a row by a SQL expression (DuckDB dialect)."""

    name: str
    type: ColumnType
    expression: str
    private: bool = False
    mask: Mask | None = None


@dataclass(frozen=True)
class EventTime:
    """Which field holds a row's event time, and how disorder is judged (milliseconds)."""

    field: str | None = None  # None: the source's commit time (source.ts_ms), or the Kafka timestamp of plain events
    out_of_orderness_ms: int = 10_000
    idle_timeout_ms: int = 60_000
    max_future_skew_ms: int = 300_000
    allowed_lateness_ms: int = 0  # how far the watermark may have passed a window's end for a row still to count


@dataclass(frozen=True)
class Window:
    """How an aggregate cuts time (milliseconds)."""

    type: WindowType
    size_ms: int  # of sessions: the gap without rows that ends one
    step_ms: int  # between beginnings (tumble, hop), or ends (cumulate); of sessions: the gap


@dataclass(frozen=True)
class Measure:
    """One measure of an aggregate: a function's name (in contracts.measures.FUNCTIONS) and what it is of."""

    name: str
    function: str
    column: str | None = None  # None: whole rows
    argument: float | None = None


@dataclass(frozen=True)
class Aggregate:
    """A table of measures by window and group: <stream>_<name>."""

    name: str
    window: Window
    measures: tuple[Measure, ...]
    group_by: tuple[str, ...] = ()
    where: str | None = None  # SQL over the stored row
    over: Over = Over.CHANGES


@dataclass(frozen=True)
class ServiceLevels:
    """What the contract's service levels promise, in ms; None: nothing. contracts.sla says what each is measured by."""

    latency_ms: int | None = None
    latency_from_event: bool = False  # measured from the event's time, not from when it reached Kafka
    freshness_ms: int | None = None
    frequency_ms: int | None = None


@dataclass(frozen=True)
class Contract:
    """One stream: what its records are, the rules they must meet, what is private and which tables are kept."""

    stream: str  # also the tables' base name: [a-z][a-z0-9_]*
    version: str
    file: str
    encoding: Encoding
    envelope: Envelope
    fields: tuple[Field, ...]
    topics: tuple[str, ...] = ()
    topic_pattern: str | None = None
    registry: str | None = None
    full_identity: bool = False  # REPLICA IDENTITY FULL: `before` is complete
    event_time: EventTime = EventTime()
    tables: tuple[str, ...] = ("quarantine", "changes")
    state: StateTables = StateTables()
    aggregates: tuple[Aggregate, ...] = ()
    rules: tuple[Rule, ...] = ()
    unknown_fields: UnknownFields = UnknownFields.IGNORE
    unrepresentable: Unrepresentable = Unrepresentable.NULL
    partition_by: tuple[str, ...] = ()  # columns of the tables
    row_filter: str | None = None  # SQL over the unmasked row
    derived: tuple[Derived, ...] = ()
    payload: PayloadPolicy = PayloadPolicy.MASKED
    payload_key_id: str | None = None  # for PayloadPolicy.ENCRYPTED
    start: Start = Start.EARLIEST
    start_timestamp_ms: int | None = None
    references: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)  # named reference lists
    sla: ServiceLevels = ServiceLevels()

    @property
    def key(self) -> tuple[Field, ...]:
        """The key's fields in key order; empty for a stream without a key."""
        keyed = [f for f in self.fields if f.key_position is not None]
        return tuple(sorted(keyed, key=lambda f: f.key_position or 0))

    @property
    def keeps_state(self) -> bool:
        """Whether a table is kept that needs to know each key's last change."""
        return bool({"current", "history"} & set(self.tables))

    @property
    def kept(self) -> tuple[Field, ...]:
        """The fields that reach the tables."""
        return tuple(f for f in self.fields if not f.dropped)

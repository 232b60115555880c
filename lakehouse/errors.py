"""What can go wrong with the tables, as a tree: retryable or fatal is part of the type.

LakehouseError
|-- RetryableError               trying again later can help
|   |-- LakeUnavailable          the storage did not answer, or answered with a failure
|   `-- CommitContested          other writers won every attempt
`-- FatalError                   an operator must act; trying again gives the same
    |-- WrongCredentials         the storage refuses our key
    |-- NotWritable              the storage refuses our writes
    |-- BucketMissing            the bucket does not exist
    |-- DiskFull                 no space is left
    |-- ClockDiffers             this machine's clock is not the store's
    |-- GapFound                 records between the progress and a section are missing
    |-- RetentionLoss            Kafka deleted records before they were read
    |-- TopicRecreated           the topic is not the one the tables were filled from
    |-- TopicTruncated           the topic ends before our progress
    |-- PositionsRestarted       the source's positions began again below the stored ones
    |-- SegmentMissing           a section that is still needed is gone or damaged
    |-- TableVanished            a table that held data is gone
    |-- TableWentBack            a table is at a lower version than before
    |-- RestoredTable            RESTORE was run on a table
    |-- OtherPipeline            the table belongs to another pipeline
    |-- NotBegun                 a stream has no tables yet
    |-- PartialTable             a table was added to a stream that already has progress
    |-- StateMissing             a table has progress, but its log no longer says the rest
    |-- KeyPinChanged            a deterministic mask now has another key
    |-- EpochOver                another start went on with a new epoch of a topic
    |-- LanesOver                another start went on with another number of lanes
    |-- LanesRefused             a stream's lanes cannot be changed as the contract wants
    |-- SwapRefused              a version cannot take the place of a stream's tables
    |-- TruncateRefused          the source was truncated, and the contract says to stop there
    |-- SchemaRefused            the table's columns are not the contract's
    |   `-- MigrationRefused     values of the table cannot be what the contract wants, or somebody writes
    `-- TableRefused             the table cannot take what we write
"""

from __future__ import annotations


class LakehouseError(Exception):
    """Something about the tables that the caller must know; the message says what to do."""


class RetryableError(LakehouseError):
    """Trying again later can help."""


class FatalError(LakehouseError):
    """Trying again gives the same; an operator must act."""


class LakeUnavailable(RetryableError):  # noqa: N818 (the name says what is, as all below)
    """The storage did not answer, or answered with a failure."""


class CommitContested(RetryableError):  # noqa: N818
    """Other writers won every attempt to commit."""


class WrongCredentials(FatalError):  # noqa: N818
    """The storage refuses our key."""


class NotWritable(FatalError):  # noqa: N818
    """The storage refuses our writes."""


class BucketMissing(FatalError):  # noqa: N818
    """The bucket does not exist."""


class DiskFull(FatalError):  # noqa: N818
    """No space is left where the tables are."""


class ClockDiffers(FatalError):  # noqa: N818
    """This machine's clock is not the store's."""


class GapFound(FatalError):  # noqa: N818
    """Records between a table's progress and the next section are missing."""

    def __init__(self, stream: str, topic: str, partition: int, progress: int | None, first: int) -> None:
        self.topic, self.partition, self.progress, self.first = topic, partition, progress, first
        after = "the beginning" if progress is None else f"offset {progress}"
        super().__init__(
            f"stream {stream}: topic {topic} partition {partition}: the tables hold everything up to {after}, the next "
            f"section begins at offset {first}, and readable records lie between. Nothing was committed. "
            "Start the job again: it continues from the tables' progress."
        )


class RetentionLoss(FatalError):  # noqa: N818
    """Kafka deleted records before they were read."""

    def __init__(self, stream: str, topic: str, partition: int, progress: int, earliest: int) -> None:
        self.topic, self.partition, self.progress, self.earliest = topic, partition, progress, earliest
        super().__init__(
            f"stream {stream}: topic {topic} partition {partition}: the tables end at offset {progress}, but the topic "
            f"now begins at {earliest}: offsets {progress + 1} to {earliest - 1} were deleted before they were read. "
            "Restore them, or start with --accept-loss to go on without them."
        )


class TopicRecreated(FatalError):  # noqa: N818
    """The topic is not the one the tables were filled from."""

    def __init__(self, stream: str, topic: str, wanted: str, got: str) -> None:
        self.topic = topic
        super().__init__(
            f"stream {stream}: topic {topic} has id {got}, the tables were filled from id {wanted}: the topic was "
            "deleted and created again, its offsets mean other records. "
            f"Start with --new-epoch {topic} to go on with the new topic."
        )


class TopicTruncated(FatalError):  # noqa: N818
    """The topic ends before our progress."""

    def __init__(self, stream: str, topic: str, partition: int, progress: int, end: int) -> None:
        self.topic, self.partition = topic, partition
        super().__init__(
            f"stream {stream}: topic {topic} partition {partition} ends at offset {end}, but the tables hold it up to "
            f"offset {progress}, so the end must be at least {progress + 1}. The topic lost records or was replaced: "
            f"start with --new-epoch {topic} if that was intended."
        )


class PositionsRestarted(FatalError):  # noqa: N818
    """The source's positions began again below the stored ones: what it sends now would lose against them."""

    def __init__(
        self, stream: str, partition: tuple[str, int], offset: int, below: tuple[int, int], got: tuple[int, int]
    ) -> None:
        topic, number = partition
        self.topic, self.partition, self.offset = topic, number, offset
        super().__init__(
            f"stream {stream}: topic {topic} partition {number}: with offset {offset} a snapshot of the source begins, "
            f"at position {got}, but position {below} came before it: the source was restored or moved, and its "
            "positions began again. What it sends from here on would lose against what is stored. "
            f"Start with --new-epoch {topic} to put it above that; or resume the stream if the positions are right."
        )


class SegmentMissing(FatalError):  # noqa: N818
    """A section that is still needed is gone or damaged."""


class TableVanished(FatalError):  # noqa: N818
    """A table that held data is gone."""


class TableWentBack(FatalError):  # noqa: N818
    """A table is at a lower version than before."""


class RestoredTable(FatalError):  # noqa: N818
    """RESTORE was run on a table: rows went back, progress did not."""


class OtherPipeline(FatalError):  # noqa: N818
    """The table belongs to another pipeline: reading the topics again would put every record in twice."""


class PartialTable(FatalError):  # noqa: N818
    """A table was added to a stream that already has progress."""


class NotBegun(FatalError):  # noqa: N818
    """The stream has no tables yet, or not all that the contract wants."""


class StateMissing(FatalError):  # noqa: N818
    """A table has progress, but its log no longer says watermark and positions."""


class KeyPinChanged(FatalError):  # noqa: N818
    """A deterministic mask now has another key than the values in the table."""


class SchemaRefused(FatalError):  # noqa: N818
    """The table's columns are not the contract's, and the difference is more than added columns."""


class MigrationRefused(SchemaRefused):
    """The table cannot be brought to what the contract wants without losing something, or somebody is writing it."""


class EpochOver(FatalError):  # noqa: N818
    """Another start went on with a new epoch of a topic; this run belongs to the old one."""

    def __init__(self, stream: str, topic: str, stored: int, own: int) -> None:
        self.topic = topic
        super().__init__(
            f"stream {stream}: the tables are at epoch {stored} of topic {topic}, this run was started for "
            f"epoch {own}. Start the pipeline again: it continues with the epoch of the tables."
        )


class LanesOver(FatalError):  # noqa: N818
    """Another start went on with another number of lanes; this run belongs to the old one."""

    def __init__(self, stream: str, stored: int, own: int) -> None:
        super().__init__(
            f"stream {stream}: the tables have {stored} lanes, this run was started for {own}. "
            "Start the pipeline again: it brings the tables to the contract's lanes."
        )


class LanesRefused(FatalError):  # noqa: N818
    """A stream's lanes cannot be changed as the contract wants."""


class SwapRefused(FatalError):  # noqa: N818
    """A version lacks what the stream's tables hold, or somebody else is swapping."""


class TruncateRefused(FatalError):  # noqa: N818
    """The source was truncated, and the contract's policy is to stop."""

    def __init__(self, stream: str, topic: str, partition: int, offset: int) -> None:
        super().__init__(
            f"stream {stream}: the record at {topic}/{partition} offset {offset} says that the source was truncated. "
            "Write in the contract's setting `state` either `truncate: apply` (older rows leave current, their "
            "versions end) or `truncate: ignore` (they stay). A parked stream then goes on with `tidegate resume`."
        )


class TableRefused(FatalError):  # noqa: N818
    """The table cannot take what we write: other columns, or features that our writer does not know."""

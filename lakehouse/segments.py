"""Segments: one object per batch that holds what the batch says about each of its streams.

A section = magic, four lengths, then up to four Arrow IPC streams (rows, rejects, others, withheld; an empty table but
rows has length 0). A segment = sections, then a trailer (JSON: streams and ranges), its length and a magic: enough to
decide later, by the tables' progress alone, that nobody needs the segment any more.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate

import obstore
import orjson
import pyarrow as pa
from obstore.exceptions import NotFoundError

from contracts.columns import OTHERS, QUARANTINE, WITHHELD_META
from lakehouse.errors import SegmentMissing
from lakehouse.lake import Lake
from lakehouse.lanes import WHOLE, Lane

FOLDER = "_tidegate/segments"
SECTION = struct.Struct("<4sIIII")  # magic, bytes of rows, of rejects, of others, of withheld
TRAILER = struct.Struct("<I4s")  # bytes of the trailer's JSON, magic
SECTION_MAGIC = b"TGS2"
SEGMENT_MAGIC = b"TGE1"
WRITE_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
TAIL_GUESS = 65_536  # bytes read at once to find a trailer
TOPIC_KEY = b"tidegate.topic"


@dataclass(frozen=True, slots=True)
class Range:
    """What a section covers of one partition: offsets first to last; prev is the last one covered before it.

    prev is None in the first section that a refine instance makes of the partition.
    """

    topic: str
    partition: int
    prev: int | None
    first: int
    last: int
    records: int
    max_event_time_ms: int | None = None


@dataclass(frozen=True, slots=True)
class SectionRef:
    """Where a section lies (object, first byte, bytes) and what it covers."""

    stream: str
    path: str
    start: int
    length: int
    ranges: tuple[Range, ...]
    rows: int  # accepted, rejected and withheld
    lane: Lane = WHOLE

    def to_text(self) -> str:
        """Give the reference as one line."""
        ranges = [(r.topic, r.partition, r.prev, r.first, r.last, r.records, r.max_event_time_ms) for r in self.ranges]
        lane = [] if self.lane.alone else [str(self.lane)]
        return orjson.dumps([self.stream, self.path, self.start, self.length, self.rows, ranges, *lane]).decode()

    @classmethod
    def from_text(cls, text: str | bytes) -> SectionRef:
        """Give the reference that to_text wrote."""
        stream, path, start, length, rows, ranges, *lane = orjson.loads(text)
        own = Lane.parse(lane[0]) if lane else WHOLE
        return cls(stream, path, start, length, tuple(Range(*r) for r in ranges), rows, own)


@dataclass(frozen=True)
class Section:
    """What one batch says about one stream, or one lane of it; each table is sorted by topic, partition, offset."""

    stream: str
    rows: pa.Table
    rejects: pa.Table  # contracts.columns.QUARANTINE
    others: pa.Table  # contracts.columns.OTHERS
    ranges: tuple[Range, ...]
    # contracts.columns.withheld_schema; without the key's columns when empty
    withheld: pa.Table = field(default_factory=WITHHELD_META.empty_table)
    lane: Lane = WHOLE


def write_segment(lake: Lake, name: str, sections: Sequence[Section]) -> list[SectionRef]:
    """Write one object that holds the sections, and give a reference to each, in the same order."""
    path = f"{FOLDER}/{name}"
    buffer = pa.BufferOutputStream()
    refs = []
    for section in sections:
        start = buffer.tell()
        _write_section(buffer, section)
        rows = len(section.rows) + len(section.rejects) + len(section.withheld)
        refs.append(SectionRef(section.stream, path, start, buffer.tell() - start, section.ranges, rows, section.lane))
    trailer = orjson.dumps([[s.stream, [(r.topic, r.partition, r.last) for r in s.ranges]] for s in sections])
    buffer.write(trailer)
    buffer.write(TRAILER.pack(len(trailer), SEGMENT_MAGIC))
    with lake.explained(f"write the segment {path}"):
        obstore.put(lake.objects, path, buffer.getvalue().to_pybytes(), use_multipart=False)
    return refs


def read_section(lake: Lake, ref: SectionRef) -> Section:
    """Read one section by its range of bytes; raises SegmentMissing when it is gone or damaged."""
    with lake.explained(f"read the segment {ref.path}"):
        try:
            data = pa.py_buffer(obstore.get_range(lake.objects, ref.path, start=ref.start, length=ref.length))
        except (FileNotFoundError, NotFoundError) as error:
            raise SegmentMissing(_missing(ref, "the object is gone")) from error
    if data.size != ref.length:
        raise SegmentMissing(_missing(ref, f"{ref.length} bytes wanted, {data.size} got"))
    magic, *lengths = SECTION.unpack(data.slice(0, SECTION.size))
    if magic != SECTION_MAGIC or SECTION.size + sum(lengths) != ref.length:
        raise SegmentMissing(_missing(ref, "its bytes are not a section"))
    starts = [SECTION.size, *(SECTION.size + end for end in accumulate(lengths))]
    parts = [data.slice(start, length) for start, length in zip(starts, lengths, strict=False)]
    empty = (pa.schema([]), QUARANTINE, OTHERS, WITHHELD_META)
    rows, rejects, others, withheld = map(_read_table, parts, empty)
    return Section(ref.stream, rows, rejects, others, ref.ranges, withheld, ref.lane)


def _missing(ref: SectionRef, why: str) -> str:
    first = ref.ranges[0] if ref.ranges else None
    where = f" (topic {first.topic} partition {first.partition} from offset {first.first})" if first else ""
    return (
        f"stream {ref.stream}: the segment {ref.path}{where} is still needed, but {why}. "
        "Start the job again: it reads the records from Kafka once more."
    )


def _write_section(buffer: pa.BufferOutputStream, section: Section) -> None:
    beside = (section.rejects, section.others, section.withheld)
    parts = [_encode(section.rows, even_empty=True), *map(_encode, beside)]
    buffer.write(SECTION.pack(SECTION_MAGIC, *(len(part) for part in parts)))
    for part in parts:
        if len(part):
            buffer.write(part)


def _encode(table: pa.Table, *, even_empty: bool = False) -> pa.Buffer | bytes:
    if not len(table) and not even_empty:
        return b""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=WRITE_OPTIONS) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _read_table(data: pa.Buffer, empty: pa.Schema) -> pa.Table:
    if not data.size:
        return empty.empty_table()
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()


# stream -> (topic, partition) -> progress of the stream's anchor table
Anchors = Mapping[str, Mapping[tuple[str, int], int]]


@dataclass(frozen=True)
class Collected:
    """What a collection did: objects deleted and kept, and bytes freed."""

    deleted: int
    kept: int
    bytes: int


def collect_garbage(lake: Lake, anchors: Anchors, safety_age: timedelta, *, dry_run: bool = False) -> Collected:
    """Delete the segments that no stream needs any more, or say which would be.

    A segment goes when every range of every
    stream in it is at or below that progress and it is older than safety_age; never by age alone, so a segment of a
    stream that is not in anchors stays.
    """
    young = datetime.now(UTC) - safety_age
    deleted = kept = freed = 0
    with lake.explained("collect segments"):
        for entries in obstore.list(lake.objects, prefix=f"{FOLDER}/", chunk_size=1000):
            old = [entry for entry in entries if entry["last_modified"] < young]
            garbage = [entry for entry in old if _applied(lake, entry["path"], entry["size"], anchors)]
            if not dry_run:
                lake.delete([entry["path"] for entry in garbage])
            deleted += len(garbage)
            kept += len(entries) - len(garbage)
            freed += sum(e["size"] for e in garbage)
    return Collected(deleted, kept, freed)


def written_since(lake: Lake, since_ms: int) -> dict[str, int]:
    """Give the segments that were refined since a time, by their own clocks: path -> bytes."""
    with lake.explained("list segments"):
        pages = obstore.list(lake.objects, prefix=f"{FOLDER}/", offset=f"{FOLDER}/{since_ms}")
        return {entry["path"]: entry["size"] for page in pages for entry in page}


def covers(lake: Lake, path: str, size: int, stream: str, partition: tuple[str, int], offset: int) -> bool:
    """Say whether a segment covers an offset, or a later one, for a stream; not when it is gone meanwhile."""
    with lake.explained(f"read the segment {path}"):
        try:
            trailer = _trailer(lake, path, size)
        except (FileNotFoundError, NotFoundError):
            return False
    found = (last for name, ranges in trailer if name == stream for *where, last in ranges if tuple(where) == partition)
    return any(last >= offset for last in found)


def _applied(lake: Lake, path: str, size: int, anchors: Anchors) -> bool:
    return all(
        last <= anchors.get(stream, {}).get((topic, partition), -1)
        for stream, ranges in _trailer(lake, path, size)
        for topic, partition, last in ranges
    )


def _trailer(lake: Lake, path: str, size: int) -> Iterable[tuple[str, list[tuple[str, int, int]]]]:
    """Give a segment's streams and their ranges (topic, partition, last offset)."""
    guess = min(size, TAIL_GUESS)
    tail = bytes(obstore.get_range(lake.objects, path, start=size - guess, length=guess))
    length, magic = TRAILER.unpack(tail[-TRAILER.size :])
    if magic != SEGMENT_MAGIC:
        raise SegmentMissing(f"the segment {path} has no trailer: it is not ours or damaged; move it away.")
    wanted = length + TRAILER.size
    if wanted > guess:
        tail = bytes(obstore.get_range(lake.objects, path, start=size - wanted, length=wanted))
    trailer: list[tuple[str, list[tuple[str, int, int]]]] = orjson.loads(tail[-wanted : -TRAILER.size])
    return trailer

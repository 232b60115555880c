"""Load messages from files into Kafka, keeping topic, partition, key, value, headers and timestamp.

One message a line: {"topic", "partition", "offset", "timestamp", "key_b64", "value_b64", "headers": [[name, b64]]}.
Lines of one partition are written in the order of the files; offsets are Kafka's own.
"""

from __future__ import annotations

import base64
import gzip
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

import orjson
from kafka.errors import KafkaError
from kafka.serializer import Serializer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from jobs.errors import KafkaProblem
from jobs.kafka.client import KafkaClient
from jobs.kafka.topics import ensure_topics

LEAST_PARTITIONS = 3
LARGEST_REQUEST_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Message:
    """One record to write, and the line it came from."""

    topic: str
    partition: int
    timestamp: int | None  # ms since the epoch
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]  # kafka-python writes no null header


def load_files(
    files: Sequence[Path | str],
    kafka: KafkaClient,
    *,
    console: Console | None = None,
    partitions: int = LEAST_PARTITIONS,
    create: bool = True,
) -> dict[str, int]:
    """Write all messages of the files and give the number per topic.

    A file is JSON lines, plain or .gz, or ARCHIVE.zip:PATTERN for members of an archive. Missing topics are created
    with at least `partitions` partitions. Raises KafkaProblem, for a damaged line with its file and number and before
    anything is written.
    """
    messages = [message for file in files for message in read_messages(str(file))]
    needed = Counter[str]()
    for message in messages:
        needed[message.topic] = max(needed[message.topic], message.partition + 1, partitions)
    if create:
        ensure_topics(kafka, needed)
    columns = (TextColumn("loading"), BarColumn(), MofNCompleteColumn(), TextColumn("messages"))
    with Progress(*columns, console=console or Console(quiet=True), transient=True) as bar:
        task = bar.add_task("load", total=len(messages))
        with kafka.producer(
            max_request_size=LARGEST_REQUEST_BYTES, linger_ms=20, value_serializer=_Values()
        ) as producer:
            # The client asks for a topic's partitions when it first meets it, one topic at a time: ask for all at once.
            with ThreadPoolExecutor(max_workers=min(len(needed), 128) or 1) as pool:
                list(pool.map(producer.partitions_for, needed))
            sent = []
            for message in messages:  # one call a message is the client's interface; this is not the main path
                sent.append(_send(producer, message))
                bar.advance(task)
            producer.flush()
            for future in sent:
                future.get(timeout=30)
    return dict(Counter(message.topic for message in messages))


def read_messages(file: str) -> Iterator[Message]:
    """Give the messages of one file; raises KafkaProblem with file and line for one that cannot be read."""
    try:
        for name, content in _opened(file):
            for number, line in enumerate(content, start=1):
                if line.strip():
                    yield _message(line, f"{name}:{number}")
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise KafkaProblem(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None


_EXPECTED = 'expected {"topic", "partition", "key_b64", "value_b64", "headers"} with base64 text'


def _opened(file: str) -> Iterator[tuple[str, IO[bytes]]]:
    archive, _, pattern = file.partition(".zip:")
    if pattern:
        yield from _members(Path(f"{archive}.zip"), pattern)
    elif file.endswith(".gz"):
        with gzip.open(file, "rb") as content:
            yield file, content  # type: ignore[misc]  # GzipFile reads as any binary file
    else:
        with Path(file).open("rb") as content:
            yield file, content


def _members(archive: Path, pattern: str) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as content:
        names = [name for name in sorted(content.namelist()) if fnmatchcase(name, pattern)]
        if not names:
            raise KafkaProblem(f"{archive} holds no file that matches {pattern}")
        for name in names:
            with content.open(name) as member:
                yield f"{archive}:{name}", member


def _message(line: bytes, where: str) -> Message:
    try:
        read: dict[str, Any] = orjson.loads(line)
        headers = read.get("headers") or ()
        return Message(
            topic=str(read["topic"]),
            partition=int(read["partition"]),
            timestamp=read.get("timestamp"),
            key=_bytes(read["key_b64"]),
            value=_bytes(read["value_b64"]),
            headers=tuple((str(name), base64.b64decode(value, validate=True)) for name, value in headers),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise KafkaProblem(f"{where}: not a message ({_what(error)}); {_EXPECTED}") from None


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)


# kafka-python refuses a record without key and value, though Kafka does not: the delete of a table without key is one.
NOTHING = object()


class _Values(Serializer):  # type: ignore[misc]  # kafka-python has no types
    def serialize(self, _topic: str, _headers: object, data: object) -> object:
        return None if data is NOTHING else data


def _send(producer: Any, message: Message) -> Any:
    try:
        return producer.send(
            message.topic,
            value=NOTHING if message.value is None else message.value,
            key=message.key,
            headers=list(message.headers),
            partition=message.partition,
            timestamp_ms=message.timestamp,
        )
    except (KafkaError, AssertionError) as error:
        raise KafkaProblem(
            f"topic {message.topic} partition {message.partition}: a message of {len(message.value or b'')} bytes was "
            f"not taken ({type(error).__name__}: {error})"
        ) from error


def _what(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return "no JSON" if isinstance(error, orjson.JSONDecodeError) else "a value has the wrong type"

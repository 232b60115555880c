"""Where each stream first began: a durable record, so that a later start does not choose again.

Without it a stream that begins at the end of its topics would, in partitions that brought nothing before it was
stopped, begin at their new end and leave out what came in between.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from lakehouse.lake import Lake

FOLDER = "_tidegate/begins"

Partition = tuple[str, int]  # topic, partition


def read_begins(lake: Lake, pipeline: str, stream: str, ids: Mapping[str, str]) -> dict[Partition, int] | None:
    """Give the first offset to read of each partition known at the first start; None when there was no such start.

    `ids` are the topics' ids now: a topic that was created again since has no begin.
    """
    record = lake.get(_path(pipeline, stream))
    if record is None:
        return None
    return {
        (topic, int(number)): offset
        for topic, entry in orjson.loads(record).items()
        if entry["id"] == ids.get(topic)
        for number, offset in entry["offsets"].items()
    }


def keep_begins(
    lake: Lake, pipeline: str, stream: str, ids: Mapping[str, str], begins: Mapping[Partition, int]
) -> None:
    """Record where a stream begins, each partition's first offset and its topic's id; a first record stays."""
    if lake.exists(_path(pipeline, stream)):
        return
    offsets: dict[str, dict[str, int]] = {}
    for (topic, number), offset in sorted(begins.items()):
        offsets.setdefault(topic, {})[str(number)] = offset
    record = {topic: {"id": ids[topic], "offsets": own} for topic, own in offsets.items()}
    lake.put(_path(pipeline, stream), orjson.dumps(record))


def _path(pipeline: str, stream: str) -> str:
    return f"{FOLDER}/{pipeline}/{stream}.json"

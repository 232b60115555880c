"""The law, checked: every offset of every partition is exactly once in changes, quarantine or the counted kinds.

What the tables of keys must hold is checked by tests/chaos/keys.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta

import duckdb
import obstore
import pyarrow as pa

from lakehouse.lake import Lake
from lakehouse.read import connect
from lakehouse.segments import FOLDER, collect_garbage
from lakehouse.standing import Standing
from tests.chaos.aggregates import aggregate_faults
from tests.chaos.changes import records_of
from tests.chaos.keys import state_faults
from tests.chaos.losses import BEFORE
from tests.chaos.records import COUNTED, DOOMED, FLOWING, QUARANTINE, Topic

CHUNK = 1_000_000
SEEN = """
CREATE OR REPLACE TABLE seen AS
SELECT _partition AS part, _offset AS off, 'changes' AS fate, _op AS op, id, cents, note,
       _position_minor AS position, _resent AS resent
FROM {stream}_changes
UNION ALL BY NAME
SELECT _partition AS part, _offset AS off, 'quarantine' AS fate FROM {stream}_quarantine
"""
# What is wrong -> the first places where it is. Every query gives partition and offset.
QUESTIONS = {
    "more than once": "SELECT part, off FROM seen GROUP BY ALL HAVING count(*) > 1",
    "missing": "SELECT part, off FROM truth WHERE fate <> 'counted' AND NOT EXISTS "
    "(FROM seen WHERE seen.part = truth.part AND seen.off = truth.off AND seen.fate = truth.fate)",
    "not produced so": "SELECT part, off FROM seen WHERE NOT EXISTS "
    "(FROM truth WHERE seen.part = truth.part AND seen.off = truth.off AND seen.fate = truth.fate)",
    "other values than produced": "SELECT part, off FROM seen JOIN truth USING (part, off) "
    "WHERE seen.fate = 'changes' AND (seen.op, seen.id, seen.cents, seen.note, seen.position, seen.resent) "
    "IS DISTINCT FROM (truth.op, truth.id, truth.cents, truth.note, truth.position, truth.resent)",
}
SHOWN = 5


def verify(
    lake: Lake, seed: int, produced: Mapping[tuple[Topic, int], int], standings: Mapping[str, Standing]
) -> tuple[Counter[str], list[str]]:
    """Give what was found (records by topic and fate) and every fault with its first offsets.

    standings: by stream, as the Delta log says.
    """
    found: Counter[str] = Counter()
    faults: list[str] = []
    with connect(lake) as connection:
        for topic in (*FLOWING, *DOOMED):
            counts = {number: count for (own, number), count in produced.items() if own == topic}
            if not counts:
                continue
            if topic in DOOMED:
                counts = {0: BEFORE}  # what stands behind the deleted records must not be there
            connection.execute(SEEN.format(stream=topic.stream))
            _load_truth(connection, seed, topic, counts)
            faults += [f"{topic.stream}: {fault}" for fault in _differences(connection)]
            if topic.debezium:
                faults += [f"{topic.stream}: {fault}" for fault in state_faults(connection, lake, topic.stream)]
                faults += [f"{topic.stream}: {fault}" for fault in aggregate_faults(connection, lake, topic.stream)]
            standing = standings[topic.stream]
            faults += [f"{topic.stream}: {fault}" for fault in _counts(connection, counts, standing)]
            for fate, number in connection.execute("SELECT fate, count(*) FROM truth GROUP BY ALL").fetchall():
                found[f"{topic.stream} {fate}"] = number
    return found, faults + list(_leftovers(lake, standings))


def _load_truth(connection: duckdb.DuckDBPyConnection, seed: int, topic: Topic, counts: Mapping[int, int]) -> None:
    empty = records_of(seed, topic, 0, 0, 0).truth()
    connection.register("chunk", empty)
    connection.execute("CREATE OR REPLACE TABLE truth AS FROM chunk")
    for number, count in counts.items():
        for first in range(0, count, CHUNK):
            chunk: pa.Table = records_of(seed, topic, number, first, min(CHUNK, count - first)).truth()
            connection.register("chunk", chunk)
            connection.execute("INSERT INTO truth FROM chunk")


def _differences(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    for what, question in QUESTIONS.items():
        total = connection.execute(f"SELECT count(*) FROM ({question})").fetchone()
        if total and total[0]:
            first = connection.execute(f"{question} ORDER BY part, off LIMIT {SHOWN}").fetchall()
            places = ", ".join(f"partition {part} offset {off}" for part, off in first)
            yield f"{total[0]:,} offsets {what}, first {places}"


def _counts(connection: duckdb.DuckDBPyConnection, produced: Mapping[int, int], standing: Standing) -> Iterator[str]:
    """Compare what the Delta log says with the truth: progress, and the counts since the beginning."""
    reached = {partition: last + 1 for (_, partition), last in standing.progress.items()}
    if reached != dict(produced):
        yield f"the progress says {reached}, produced were {dict(produced)}"
    fates = dict(connection.execute("SELECT fate, count(*) FROM truth GROUP BY ALL").fetchall())
    said = standing.anchor.counts if standing.anchor else {}
    wanted = {"quarantined": fates.get(QUARANTINE, 0), "kind.tombstone": fates.get(COUNTED, 0)}
    wanted |= {"read": sum(fates.values()), "applied": fates.get("changes", 0)}
    wrong = {name: (said.get(name, 0), number) for name, number in wanted.items() if said.get(name, 0) != number}
    if wrong:
        yield "the commit metadata counts " + ", ".join(f"{n} {name}, true are {t}" for name, (n, t) in wrong.items())


def _leftovers(lake: Lake, standings: Mapping[str, Standing]) -> Iterator[str]:
    """Say what lies under _tidegate that should not: unknown folders, and segments that nobody needs yet stay."""
    known = {"begins", "drift", "index", "memory", "parked", "pipelines", "segments", "sla"}
    folders = obstore.list_with_delimiter(lake.objects, prefix="_tidegate/")["common_prefixes"]
    names = {folder.rstrip("/").rpartition("/")[2] for folder in folders}
    if names - known:
        yield f"unknown folders under _tidegate: {', '.join(sorted(names - known))}"
    anchors = {stream: standing.progress for stream, standing in standings.items()}
    collect_garbage(lake, anchors, timedelta(0))
    flowing = {topic.stream for topic in FLOWING}
    left = [entry["path"] for page in obstore.list(lake.objects, prefix=f"{FOLDER}/") for entry in page]
    kept_for = {stream for path in left for stream in _streams(lake, path)}
    if left and not kept_for & {topic.stream for topic in DOOMED}:
        yield f"{len(left)} segments are kept for {', '.join(sorted(kept_for & flowing))}, which are complete"


def _streams(lake: Lake, path: str) -> set[str]:
    """Give the streams of a segment by its trailer."""
    from lakehouse.segments import _trailer  # noqa: PLC2701

    size = obstore.head(lake.objects, path)["size"]
    return {stream for stream, _ in _trailer(lake, path, size)}

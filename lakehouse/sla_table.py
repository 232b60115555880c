"""_tidegate/sla: how each stream was judged, over time; what is usual for a source is told from it too.

A stream gets a row when its colour, its cause or what is violated changes, and otherwise every EVERY_MS: never one a
commit, and some 150 a day. Rows are kept for KEPT_DAYS.

    evaluated_at           when it was judged
    pipeline, stream, by   whose it is, and who judged: `job`, or `supervisor` (`tidegate run --supervise`)
    colour, cause, reason  green, amber or red; lakehouse.freshness.Cause; a sentence
    violated               the promises whose limit is passed, whatever the colour: latency, freshness, frequency
    levels                 each promise: name, value_ms (null: nothing to measure), limit_ms
    event_lag_ms           age of the newest event in the tables
    waiting_records        records that Kafka holds and that are not committed; null: Kafka did not say
    oldest_waiting_ms      age of the oldest of them, by its Kafka timestamp
    commit_age_ms          since the last commit
    watermark_lag_ms       age of the stream watermark
    caught_up              the job ran, and nothing waited for longer than a minute
    records_total          records committed since the stream began, heartbeats and canaries aside
    heartbeats_total       heartbeats among them
    hour_of_week           of the middle of the sample: 0 to 167, from Monday 00:00 UTC
    sample_seconds, sample_records
                           the time since the stream's row before, and the records that were committed in it
    sample_usable          the sample tells the source's rate: caught up at both ends, half an hour at most
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from contracts.types import MICROS_UTC
from lakehouse.freshness import GRACE_MS, HEARTBEATS, Cause, Health, Past
from lakehouse.lake import Lake
from lakehouse.rates import LOOKED_BACK, Sample, hour_of_week, middle_ms, usual
from lakehouse.standing import Standing

TABLE = "_tidegate/sla"
EVERY_MS = 10 * 60_000
KEPT_DAYS = 7 * (LOOKED_BACK + 1)
REWRITTEN_EVERY = 100  # versions: small files become one, and old rows go
REPLACED_HOURS = 24  # for how long files that were replaced stay readable
LONGEST_SAMPLE_MS = 30 * 60_000
ATTEMPTS = 5  # against other writers
NOT_CAUGHT_UP = frozenset({Cause.JOB_DOWN, Cause.JOB_FAILS, Cause.PARKED, Cause.STALLED, Cause.UNKNOWN, Cause.IDLE})
NO_ROWS = frozenset({HEARTBEATS, "kind.canary"})  # counted records that say nothing of the source's rate

LEVEL = pa.struct([("name", pa.string()), ("value_ms", pa.int64()), ("limit_ms", pa.int64())])
SLA = pa.schema(
    [
        ("evaluated_at", MICROS_UTC),
        ("pipeline", pa.string()),
        ("stream", pa.string()),
        ("by", pa.string()),
        ("colour", pa.string()),
        ("cause", pa.string()),
        ("reason", pa.string()),
        ("violated", pa.list_(pa.string())),
        ("levels", pa.list_(LEVEL)),
        ("event_lag_ms", pa.int64()),
        ("waiting_records", pa.int64()),
        ("oldest_waiting_ms", pa.int64()),
        ("commit_age_ms", pa.int64()),
        ("watermark_lag_ms", pa.int64()),
        ("caught_up", pa.bool_()),
        ("records_total", pa.int64()),
        ("heartbeats_total", pa.int64()),
        ("hour_of_week", pa.int32()),
        ("sample_seconds", pa.float64()),
        ("sample_records", pa.int64()),
        ("sample_usable", pa.bool_()),
    ]
)
WHAT = ("colour", "cause", "violated")  # whose change is news
CONFIGURATION: Mapping[str, str | None] = {"delta.logRetentionDuration": "interval 2 days"}


@dataclass(frozen=True)
class Evaluation:
    """One stream as it was judged, and where it stood."""

    stream: str
    health: Health
    standing: Standing


class SlaTable:
    """The evaluations of one pipeline. Keeps what it read for that very version."""

    def __init__(self, lake: Lake, pipeline: str) -> None:
        self._lake = lake
        self._pipeline = pipeline
        self._version = -1
        self._id = ""
        self._rows = SLA.empty_table()

    def refresh(self) -> None:
        """Read what others have written since; raises LakehouseError."""
        with self._lake.explained("read the evaluations"):
            self._read(self._open())

    def past(self, stream: str, standing: Standing, now_ms: int) -> Past:
        """Give what earlier evaluations say of a stream, as of the last refresh."""
        own = self._of(stream)
        return Past(usual(_samples(own, now_ms), now_ms), _heartbeat(own, standing, now_ms))

    def record(self, evaluations: Sequence[Evaluation], by: str, now_ms: int) -> int:
        """Append a row for each stream that is due, and give how many were; raises LakehouseError."""
        for left in reversed(range(ATTEMPTS)):
            with self._lake.explained("record the evaluations"):
                table = self._open()
                self._read(table)
                rows = [row for one in evaluations if (row := self._due(one, by, now_ms)) is not None]
                if not rows:
                    return 0
                try:
                    self._append(table or self._create(), pa.Table.from_pylist(rows, SLA), now_ms)
                    return len(rows)
                except DeltaError:
                    if not left:
                        raise
        return 0

    def _append(self, table: DeltaTable, rows: pa.Table, now_ms: int) -> None:
        """Write on top of the version that was read, or not at all: whoever comes second reads again."""
        mode: Any = "append"
        if again := bool(table.version()) and table.version() % REWRITTEN_EVERY == 0:
            since = datetime.fromtimestamp(now_ms / 1000, UTC) - timedelta(days=KEPT_DAYS)
            known = table.to_pyarrow_table().select(SLA.names).cast(SLA)
            rows, mode = (
                pa.concat_tables([known.filter(pc.greater_equal(known["evaluated_at"], since)), rows]),
                "overwrite",
            )
        write_deltalake(table, rows, mode=mode, commit_properties=CommitProperties(max_commit_retries=0))
        if again:
            table.vacuum(REPLACED_HOURS, dry_run=False, enforce_retention_duration=False)

    def _due(self, one: Evaluation, by: str, now_ms: int) -> dict[str, Any] | None:
        """Give the row of a stream; None when it says nothing new and the one before is not old."""
        last = _last(self._of(one.stream))
        health = one.health
        violated = [level.name for level in health.levels if level.passed]
        same = last is not None and [last[name] for name in WHAT] == [health.colour, health.cause, violated]
        if last is not None and same and now_ms - _ms(last["evaluated_at"]) < EVERY_MS:
            return None
        m = health.measures
        counts = one.standing.anchor.counts if one.standing.anchor else {}
        caught_up = _caught_up(health)
        total = counts.get("read", 0) - sum(counts.get(kind, 0) for kind in NO_ROWS)
        return {
            "evaluated_at": datetime.fromtimestamp(now_ms / 1000, UTC),
            "pipeline": self._pipeline,
            "stream": one.stream,
            "by": by,
            "colour": str(health.colour),
            "cause": str(health.cause),
            "reason": health.reason,
            "violated": violated,
            "levels": [{"name": v.name, "value_ms": v.value_ms, "limit_ms": v.limit_ms} for v in health.levels],
            "event_lag_ms": m.event_lag_ms,
            "waiting_records": m.waiting,
            "oldest_waiting_ms": m.oldest_waiting_ms,
            "commit_age_ms": m.commit_age_ms,
            "watermark_lag_ms": m.watermark_lag_ms,
            "caught_up": caught_up,
            "records_total": total,
            "heartbeats_total": counts.get(HEARTBEATS, 0),
            **_sample(last, total, caught_up, now_ms),
        }

    def _of(self, stream: str) -> pa.Table:
        return self._rows.filter(pc.equal(self._rows["stream"], stream))

    def _open(self) -> DeltaTable | None:
        try:
            return DeltaTable(self._lake.table_uri(TABLE), storage_options=dict(self._lake.storage_options))
        except TableNotFoundError:
            return None

    def _create(self) -> DeltaTable:
        """Create the table, empty, unless another writer just did; gives it as it was created."""
        options = dict(self._lake.storage_options)
        table = DeltaTable.create(
            self._lake.table_uri(TABLE), SLA, mode="ignore", configuration=CONFIGURATION, storage_options=options
        )
        table.load_as_version(0)
        return table

    def _read(self, table: DeltaTable | None) -> None:
        version, own = (-1, "") if table is None else (table.version(), str(table.metadata().id))
        if (version, own) != (self._version, self._id):
            rows = SLA.empty_table() if table is None else table.to_pyarrow_table().select(SLA.names).cast(SLA)
            mine = rows.filter(pc.equal(rows["pipeline"], self._pipeline))
            self._rows = mine.sort_by("evaluated_at").combine_chunks()
            self._version, self._id = version, own


def _caught_up(health: Health) -> bool:
    m = health.measures
    level = m.waiting == 0 or (m.oldest_waiting_ms is not None and m.oldest_waiting_ms <= GRACE_MS)
    return health.cause not in NOT_CAUGHT_UP and level


def _sample(last: Mapping[str, Any] | None, total: int, caught_up: bool, now_ms: int) -> dict[str, Any]:
    """Give what came since the row before, and whether it tells the source's rate."""
    if last is None:
        return {"hour_of_week": None, "sample_seconds": None, "sample_records": None, "sample_usable": False}
    passed = now_ms - _ms(last["evaluated_at"])
    records = total - last["records_total"]
    return {
        "hour_of_week": hour_of_week(middle_ms(now_ms, passed / 1000)),
        "sample_seconds": passed / 1000,
        "sample_records": records,
        "sample_usable": caught_up and last["caught_up"] and records >= 0 and 0 < passed <= LONGEST_SAMPLE_MS,
    }


def _samples(own: pa.Table, now_ms: int) -> Iterable[Sample]:
    """Give the usable samples of the hour of the week that it is now: some 30."""
    of_hour = pc.and_(pc.equal(own["hour_of_week"], hour_of_week(now_ms)), own["sample_usable"])
    for row in own.filter(of_hour).select(["evaluated_at", "sample_seconds", "sample_records"]).to_pylist():
        yield Sample(_ms(row["evaluated_at"]), row["sample_seconds"], row["sample_records"])


def _heartbeat(own: pa.Table, standing: Standing, now_ms: int) -> int | None:
    """Give when the newest heartbeat was known of, to EVERY_MS; None where the stream never had one."""
    anchor, committed = standing.anchor, standing.committed_at_ms
    total = anchor.counts.get(HEARTBEATS, 0) if anchor else 0
    if not total or anchor is None:
        return None
    latest = now_ms if committed is None else min(now_ms, committed)
    known = own["heartbeats_total"].to_numpy()
    if anchor.last_counts.get(HEARTBEATS) or not len(known) or known[-1] < total:
        return latest
    grew = np.flatnonzero(np.diff(known) > 0)
    row = int(grew[-1]) + 1 if len(grew) else 0
    return min(latest, _ms(own["evaluated_at"][row].as_py()))


def _last(own: pa.Table) -> dict[str, Any] | None:
    row: dict[str, Any] | None = own.slice(len(own) - 1).to_pylist()[0] if len(own) else None
    return row


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)

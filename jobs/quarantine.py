"""What waits in a stream's quarantine: counted, shown, and sent through today's contract again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from contracts.columns import RECORDS
from contracts.model import Contract
from jobs.again import Again
from jobs.chosen import load_chosen, load_with_keys
from jobs.credentials import key_ring, lake_options
from jobs.errors import RunRefused
from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import earliest_offsets, end_offsets, partitions_of, topic_ids
from jobs.kafka.reading import records_at
from jobs.shown import Bar
from lakehouse.lake import Lake
from lakehouse.landing import Landed
from lakehouse.lives import Life
from lakehouse.quarantined import COORDINATES, Chosen, Quarantined
from lakehouse.standing import Standing, standing_of
from udfs.ciphers import Unreadable
from udfs.keys import KeyFault, KeyRing
from udfs.payloads import open_payload

AT_ONCE = 20_000  # records
Partition = tuple[str, int]  # topic, partition


def counts(stream: str, contracts: Path, lake_uri: str, chosen: Chosen) -> list[dict[str, Any]]:
    """Give how many records of a stream wait, by stage, rule and reason."""
    (contract,) = load_chosen(contracts, [stream])
    return Quarantined(Lake.open(lake_uri, lake_options()), contract).counts(chosen)


def records(
    stream: str, contracts: Path, lake_uri: str, chosen: Chosen, *, keys: Path | None, first: int
) -> list[dict[str, Any]]:
    """Give waiting records with their payload as text: as far as the contract's policy keeps it, and keys are here."""
    (contract,) = load_chosen(contracts, [stream])
    ring = key_ring(str(keys) if keys else None)
    found = Quarantined(Lake.open(lake_uri, lake_options()), contract).records(chosen, first)
    return [{**row, "_payload": _readable(row, ring)} for row in found]


def _readable(row: Mapping[str, Any], keys: KeyRing) -> Any:
    if row["_payload_form"] == "masked" and row["_payload"] is not None:
        return bytes(row["_payload"]).decode("utf-8", "replace")
    if row["_payload_form"] != "encrypted":
        return None
    try:
        key, value = open_payload(row, keys)
    except (KeyFault, Unreadable) as error:
        return f"encrypted: {error}"
    return {"key": _text(key), "value": _text(value)}


def _text(data: bytes | None) -> str | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.hex()


@dataclass
class Repaired:
    """What came of a repair; the lists name records, each with the reason why it still waits."""

    asked: int
    resolved: int = 0
    added: int = 0  # rows of changes
    failing: list[dict[str, Any]] = field(default_factory=list)
    too_old: list[dict[str, Any]] = field(default_factory=list)
    gone: list[dict[str, Any]] = field(default_factory=list)

    @property
    def left(self) -> list[dict[str, Any]]:
        """Give all records that still wait."""
        return [*self.failing, *self.too_old, *self.gone]

    def take(self, landed: Landed) -> None:
        """Add what came of some of the records."""
        self.resolved += landed.resolved
        self.added += landed.added
        for table in landed.failing:
            self.failing += [_named(row, f"{row['_stage']}: {row['_reason']}") for row in table.to_pylist()]
        for table in landed.too_old:
            self.too_old += [_named(row, TOO_OLD) for row in table.to_pylist()]


TOO_OLD = (
    "older than the contract's deleteMemory: a deleted row could come back. Read it into a new version with "
    "`tidegate replay --into`"
)
LATER = "the job has not committed the record's offset yet: repair it again later"
LOST = "Kafka no longer holds the record, and the quarantine does not keep its bytes"
EPOCH = "written before the quarantine kept epochs, and the topic was created again since"


def _named(row: Mapping[str, Any], why: str) -> dict[str, Any]:
    place = {name.removeprefix("_"): row[name] for name in COORDINATES}
    return {**place, "rules": row.get("_rules") or [], "why": why}


def repair(
    stream: str,
    contracts: Path,
    lake_uri: str,
    pipeline: str,
    chosen: Chosen,
    *,
    kafka: KafkaClient | None,
    keys: Path | None,
    console: Console,
) -> Repaired:
    """Send waiting records through today's contract again; what passes lands in the tables, the rest stays.

    kafka: None where only payloads that the quarantine keeps are to be read. Raises RunRefused for a topic that is
    another one by now only where nothing else can be read, KafkaProblem, and what lakehouse.errors says.
    """
    contract, ring = load_with_keys(contracts, stream, keys)
    lake = Lake.open(lake_uri, lake_options())
    return repair_records(contract, lake, pipeline, chosen, kafka=kafka, keys=ring, console=console)


def repair_records(
    contract: Contract,
    lake: Lake,
    pipeline: str,
    chosen: Chosen,
    *,
    kafka: KafkaClient | None,
    keys: KeyRing,
    console: Console,
) -> Repaired:
    """Do as repair says for a loaded contract."""
    quarantined = Quarantined(lake, contract)
    places = quarantined.places(chosen)
    done = Repaired(len(places))
    if not len(places):
        return done
    standing = standing_of(lake, contract, pipeline)
    if standing.anchor is None:
        raise RunRefused(f"pipeline {pipeline} has committed nothing of {contract.stream}: is --name right?")
    again = Again(contract, lake, pipeline, keys)
    sought = _Sought(contract, quarantined, standing, kafka, keys)
    with Bar(console, f"repairing {contract.stream}", len(places)) as bar:
        for start in range(0, len(places), AT_ONCE):
            some = places.slice(start, AT_ONCE)
            for epochs, raw in sought.records(some, done):
                done.take(again.land(raw, epochs))
            bar.advance(len(some))
    return done


class _Sought:
    """Looks for the raw records behind quarantine rows: in Kafka, else among the payloads that are kept."""

    def __init__(
        self,
        contract: Contract,
        quarantined: Quarantined,
        standing: Standing,
        kafka: KafkaClient | None,
        keys: KeyRing,
    ) -> None:
        self._contract, self._quarantined, self._standing = contract, quarantined, standing
        self._kafka, self._keys = kafka, keys
        self._held = _held(kafka, standing) if kafka else {}

    def records(self, places: pa.Table, done: Repaired) -> Iterator[tuple[Mapping[str, int], pa.Table]]:
        """Give records with the epochs of their topics; tells `done` of those that are nowhere."""
        rows = []
        for row in places.to_pylist():  # quarantined records are few
            why = self._unready(row)
            if why is not None:
                done.gone.append(_named(row, why))
            else:
                rows.append({**row, "_epoch": row["_epoch"] or 0})
        held = [row for row in rows if self._in_kafka(row)]
        there: set[tuple[int, tuple[str, int, int]]] = set()
        for epoch in sorted({row["_epoch"] for row in held}):
            found = self._from_kafka([row for row in held if row["_epoch"] == epoch])
            places = zip(*(found[name].to_pylist() for name in ("topic", "partition", "offset")), strict=True)
            there |= {(epoch, place) for place in places}
            if len(found):
                yield dict.fromkeys(pc.unique(found["topic"]).to_pylist(), epoch), found
        yield from self._from_payloads([row for row in rows if (row["_epoch"], _place(row)) not in there], done)

    def _unready(self, row: Mapping[str, Any]) -> str | None:
        """Say why a record cannot be repaired whatever it holds."""
        epoch, life = self._standing.epoch(row["_topic"]), self._life(row)
        if row["_epoch"] is None and life.start > 0:
            return EPOCH
        progress = self._standing.progress.get((row["_topic"], row["_partition"]), -1)
        return LATER if (row["_epoch"] or 0) == epoch and row["_offset"] > progress else None

    def _in_kafka(self, row: Mapping[str, Any]) -> bool:
        first, end = self._held.get((row["_topic"], row["_partition"]), (0, 0))
        return bool(self._life(row).start <= row["_epoch"] and first <= row["_offset"] < end)

    def _life(self, row: Mapping[str, Any]) -> Life:
        """Give the epochs that a record's topic had since it was made: all of them may be in Kafka."""
        assert self._standing.anchor is not None
        return self._standing.anchor.life(row["_topic"])

    def _from_kafka(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        wanted: dict[Partition, list[int]] = {}
        for row in rows:
            wanted.setdefault((row["_topic"], row["_partition"]), []).append(row["_offset"])
        if self._kafka is None or not wanted:
            return RECORDS.empty_table()
        lacking = f"{self._contract.stream}: records are wanted"
        parts = list(records_at(self._kafka, wanted, lacking))
        return pa.concat_tables(parts) if parts else RECORDS.empty_table()

    def _from_payloads(
        self, left: Sequence[Mapping[str, Any]], done: Repaired
    ) -> Iterator[tuple[Mapping[str, int], pa.Table]]:
        """Give the records whose bytes the quarantine keeps, encrypted, by epoch."""
        if not left:
            return
        asked = pa.Table.from_pylist([{name: row[name] for name in (*COORDINATES, "_epoch")} for row in left])
        kept = self._quarantined.payloads(asked)
        opened: dict[int, list[dict[str, Any]]] = {}
        for row in kept:
            try:
                key, value = open_payload(row, self._keys)
            except KeyFault as error:
                done.gone.append(_named(row, f"Kafka no longer holds the record, and its payload needs a key: {error}"))
            except Unreadable as error:
                done.gone.append(_named(row, f"Kafka no longer holds the record, and its payload is no use: {error}"))
            except ValueError:
                done.gone.append(_named(row, LOST))
            else:
                opened.setdefault(row["_epoch"] or 0, []).append(_raw(row, key, value))
        for epoch, rows in opened.items():
            yield {str(row["topic"]): epoch for row in rows}, pa.Table.from_pylist(rows, schema=RECORDS)


def _held(kafka: KafkaClient, standing: Standing) -> dict[Partition, tuple[int, int]]:
    """Give what Kafka holds (first offset, end) of the topics that the tables were filled from."""
    assert standing.anchor is not None
    there = set(kafka.topics())
    known = sorted(topic for topic in {topic for topic, _ in standing.anchor.partitions} if topic in there)
    ids = topic_ids(kafka, known)
    same = [topic for topic in known if standing.anchor.topics.get(topic, ids[topic]) == ids[topic]]
    partitions = partitions_of(kafka, same)
    first, ends = earliest_offsets(kafka, partitions), end_offsets(kafka, partitions)
    return {partition: (first[partition], ends[partition]) for partition in partitions}


def _place(row: Mapping[str, Any]) -> tuple[str, int, int]:
    return row["_topic"], row["_partition"], row["_offset"]


def _raw(row: Mapping[str, Any], key: bytes | None, value: bytes | None) -> dict[str, Any]:
    """Give a record of its kept bytes; headers are not kept."""
    at = row["_kafka_time"]
    stamp = None if at is None else int(at.timestamp() * 1000)
    topic, partition, offset = _place(row)
    beside = {"key": key, "value": value, "old_key": None, "new_key": None}
    return {"topic": topic, "partition": partition, "offset": offset, "timestamp": stamp, **beside}

"""The working part of the refine function: split a mixed batch by stream, refine each, write one segment."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.added import Added, with_added
from contracts.model import Contract, UnknownFields
from jobs.defects import Defect, guarded
from jobs.metrics import Metrics
from jobs.patience import Patience
from jobs.registry import Registries
from jobs.routing import Routes
from lakehouse.added import claim_columns
from lakehouse.dealing import deal
from lakehouse.drift import record_drift
from lakehouse.errors import LakehouseError
from lakehouse.lake import Lake
from lakehouse.parking import Parking
from lakehouse.segments import Range, Section, SectionRef, write_segment
from udfs.drift import DriftWatch
from udfs.glimpses import new_columns
from udfs.keys import KeyRing
from udfs.refine import Refined, refine

Partition = tuple[str, int]
T = TypeVar("T")


@dataclass
class Refinery:
    """Turns batches of raw records into segments; holds nothing but caches and the last offset seen per partition."""

    contracts: Sequence[Contract]
    lake: Lake
    parking: Parking
    registries: Registries
    keys: KeyRing
    metrics: Metrics
    patience: Patience = field(default_factory=Patience)
    last: dict[Partition, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._routes = Routes(self.contracts)
        self._watches: dict[str, DriftWatch] = {}
        self._extended: dict[str, Contract] = {}  # contracts that want the columns their sources gained

    def take(self, records: pa.Table) -> list[SectionRef]:
        """Refine one batch (columns: RECORDS, any topics) and give where the sections of each stream's lanes lie.

        Blocks while the registry or the store is away; raises once the store stays away for long. A stream whose
        records meet a fault of ours is parked, the others go on.
        """
        now_ms = int(time.time() * 1000)
        records = _sorted(records)
        ranges = self._ranges(records)
        kept = [
            section
            for contract, part in self._by_stream(records)
            for section in self._sections(contract, part, ranges, now_ms)
        ]
        if not kept:
            return []
        refs = self._patiently(lambda: write_segment(self.lake, _segment_name(now_ms), kept))
        self.metrics.count("segment_bytes", sum(ref.length for ref in refs))
        return refs

    def _sections(
        self, contract: Contract, records: pa.Table, ranges: Mapping[Partition, Range], now_ms: int
    ) -> Sequence[Section]:
        """Refine one stream's records, a section a lane; none when the stream is parked, or parks itself on them."""
        self.metrics.count("records_in", len(records), stream=contract.stream)
        if self._patiently(lambda: self.parking.is_parked(contract.stream)):
            return ()
        try:
            refined = guarded(
                f"stream {contract.stream}: refining {_shown(ranges, records)}",
                lambda: self._refined(contract, records, now_ms),
            )
        except Defect as defect:
            self._park(contract.stream, str(defect))
            return ()
        self._report(contract, refined)
        self._note_drift(contract, records, refined, now_ms)
        if refined.failed is not None:
            self._park(contract.stream, str(refined.failed))
            return ()
        latest_ms = now_ms + contract.event_time.max_future_skew_ms
        own = _with_event_times(ranges, records, refined.rows, latest_ms)
        section = Section(contract.stream, refined.rows, refined.rejects, refined.others, own, refined.withheld)
        return self._dealt(section, contract)

    def _dealt(self, section: Section, contract: Contract) -> Sequence[Section]:
        """Give the sections of the stream's lanes; none when the stream parks itself on it."""
        try:
            return guarded(f"stream {contract.stream}: dealing out to its lanes", lambda: deal(section, contract))
        except Defect as defect:
            self._park(contract.stream, str(defect))
            return ()

    def _refined(self, contract: Contract, records: pa.Table, now_ms: int) -> Refined:
        """Refine with the columns that the stream has by now; once more when the batch shows a new one."""
        schemas = self.registries.source(contract)
        wanted = self._with_added(contract, {})
        refined = refine(records, wanted, schemas, self.keys, now_ms)
        new = new_columns(refined.glimpses, wanted)
        if new:
            refined = refine(records, self._with_added(contract, new), schemas, self.keys, now_ms)
        return refined

    def _with_added(self, contract: Contract, new: Added) -> Contract:
        """Give the contract with its stream's added columns, of which those in `new` are claimed here."""
        if contract.unknown_fields is not UnknownFields.ADD:
            return contract
        known = self._extended.get(contract.stream)
        if known is None or new:
            columns = self._patiently(lambda: claim_columns(self.lake, contract.stream, new))
            known = self._extended[contract.stream] = with_added(contract, columns)
        return known

    def _note_drift(self, contract: Contract, records: pa.Table, refined: Refined, now_ms: int) -> None:
        """Record what the batch shows for the first time of a drift between source and contract; never fails."""
        watch = self._watches.get(contract.stream)
        if watch is None:
            watch = self._watches[contract.stream] = DriftWatch(contract)
        gained = self._with_added(contract, {}).fields[len(contract.fields) :]
        notes = watch.notes(refined.glimpses, refined.signs, gained)
        if not notes:
            return
        seen_at = datetime.fromtimestamp(now_ms / 1000, UTC)
        places = [records.slice(note.row, 1).select(["topic", "partition", "offset"]).to_pylist()[0] for note in notes]
        rows = [
            {"seen_at": seen_at, "stream": contract.stream, **place, **asdict(note)}
            for note, place in zip(notes, places, strict=True)
        ]
        try:
            self.metrics.count("drift_noted", record_drift(self.lake, rows), stream=contract.stream)
        except LakehouseError:
            # Told again after the next start: a stream must not stand still for a note.
            self.metrics.count("drift_not_recorded", len(rows), stream=contract.stream)

    def _park(self, stream: str, reason: str) -> None:
        self._patiently(lambda: self.parking.park(stream, reason))
        self.metrics.count("streams_parked", 1, stream=stream)

    def _patiently(self, verb: Callable[[], T]) -> T:
        return self.patience.until_done(verb, each=lambda: self.metrics.count("store_retries", 1))

    def _report(self, contract: Contract, refined: Refined) -> None:
        for name, amount in refined.counts().items():
            group, _, what = name.partition(".")
            labels = {group: what} if what else {}
            self.metrics.count("records_" + group, amount, stream=contract.stream, **labels)
        self.metrics.count("decode_fallbacks", refined.fallbacks, stream=contract.stream)

    def _ranges(self, records: pa.Table) -> dict[Partition, Range]:
        """Give per partition what the batch covers, linked to what this instance saw before."""
        ranges: dict[Partition, Range] = {}
        offsets = records["offset"].to_numpy()
        for topic, partition, start, end in _runs(records):
            key = (topic, partition)
            first, last = int(offsets[start]), int(offsets[end - 1])
            ranges[key] = Range(topic, partition, self.last.get(key), first, last, end - start, None)
            self.last[key] = last
        return ranges

    def _by_stream(self, records: pa.Table) -> Iterator[tuple[Contract, pa.Table]]:
        """Give each stream with its records (no copies: slices of the sorted batch)."""
        slices: dict[str, list[pa.Table]] = {}
        found: dict[str, Contract] = {}
        for topic, start, end in _topic_runs(records):
            for contract in self._routes.of(topic):
                slices.setdefault(contract.stream, []).append(records.slice(start, end - start))
                found[contract.stream] = contract
        for stream, parts in slices.items():
            yield found[stream], parts[0] if len(parts) == 1 else pa.concat_tables(parts).combine_chunks()


def _segment_name(now_ms: int) -> str:
    return f"{now_ms}-{uuid.uuid4().hex}"


def refined_at_ms(path: str) -> int:
    """Give when a segment was refined (ms since the epoch), from its path."""
    return int(path.rpartition("/")[2].partition("-")[0])


def _sorted(records: pa.Table) -> pa.Table:
    """Give the batch by topic, partition, offset; as it is when it already stands so (one fetch of one partition)."""
    codes = pc.dictionary_encode(records["topic"]).combine_chunks().indices.to_numpy()
    partitions, offsets = records["partition"].to_numpy(), records["offset"].to_numpy()
    same = (codes[1:] == codes[:-1]) & (partitions[1:] == partitions[:-1])
    if same.all() and (offsets[1:] > offsets[:-1]).all():
        return records
    return records.take(pa.array(np.lexsort((offsets, partitions, codes))))


def _runs(records: pa.Table) -> Iterator[tuple[str, int, int, int]]:
    """Give (topic, partition, start, end) of each run of equal partitions in a sorted batch."""
    partitions = records["partition"].to_numpy()
    for topic, start, end in _topic_runs(records):
        cuts = np.flatnonzero(np.diff(partitions[start:end])) + 1 + start
        bounds = [start, *cuts.tolist(), end]
        for low, high in pairwise(bounds):
            yield topic, int(partitions[low]), low, high


def _topic_runs(records: pa.Table) -> Iterator[tuple[str, int, int]]:
    encoded = pc.dictionary_encode(records["topic"]).combine_chunks()
    codes = encoded.indices.to_numpy()
    bounds = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
    for start, end in pairwise(bounds):
        if end > start:
            yield encoded.dictionary[int(codes[start])].as_py(), start, end


def _shown(ranges: Mapping[Partition, Range], records: pa.Table) -> str:
    """Say which records of a batch are a stream's, by their first partition."""
    own = [ranges[topic, partition] for topic, partition, _, _ in _runs(records)]
    more = f" and {len(own) - 1} more partitions" if len(own) > 1 else ""
    return f"topic {own[0].topic} partition {own[0].partition} offsets {own[0].first} to {own[0].last}{more}"


_NEVER = np.iinfo(np.int64).min  # in the place of an event time that is not there


def _with_event_times(
    ranges: Mapping[Partition, Range], records: pa.Table, rows: pa.Table, latest_ms: int
) -> tuple[Range, ...]:
    """Give the stream's own ranges with the highest event time of their accepted rows (ms), but for later ones."""
    highest: dict[Partition, int] = {}
    if len(rows):  # sorted, as the records are
        times = rows["_event_time"].cast(pa.int64()).fill_null(_NEVER).to_numpy()
        times = np.where(times // 1000 > latest_ms, _NEVER, times)
        runs = list(_runs(rows.select(["_topic", "_partition"]).rename_columns(["topic", "partition"])))
        most = np.maximum.reduceat(times, [start for _, _, start, _ in runs])
        found = zip(runs, most.tolist(), strict=True)
        highest = {(topic, number): time_us // 1000 for (topic, number, _, _), time_us in found if time_us != _NEVER}
    own = [ranges[topic, partition] for topic, partition, _, _ in _runs(records)]
    return tuple(
        Range(r.topic, r.partition, r.prev, r.first, r.last, r.records, highest.get((r.topic, r.partition)))
        for r in own
    )

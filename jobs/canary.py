"""Send a marked record down a stream's own topic, and time it on its way until a reader of the tables sees it.

The record has a null value and a key that begins with `{"tidegate_canary":`. Tidegate counts it (`kind.canary`) and
stores no row of it; all that it changes is the stream's progress. Other consumers of the topic get it as well.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from kafka.errors import KafkaTimeoutError
from rich.console import Console
from rich.table import Table

from contracts.load import load_contracts
from contracts.model import Contract
from jobs.credentials import lake_options
from jobs.errors import ClusterUnreachable, TidegateError, UnknownStream
from jobs.kafka.client import KafkaClient
from jobs.launch import running_job
from jobs.routing import reads
from lakehouse.errors import RetryableError
from lakehouse.kinds import kinds_of
from lakehouse.lake import Lake
from lakehouse.lanes import lanes
from lakehouse.parking import Parking
from lakehouse.progress import app_id
from lakehouse.segments import covers, written_since
from lakehouse.standing import Standing, standing_of
from udfs.kinds import CANARY_KEY

STAGES = ("produced", "acknowledged", "refined", "committed", "visible")
POLL_SECONDS = 0.2
CLOCKS_DIFFER_MS = 10 * 60_000  # at most, between here and who refines

STUCK = {
    "produced": "Kafka's client did not take the record",
    "acknowledged": "Kafka did not acknowledge the record",
    "refined": "the record is in Kafka, but no segment holds it",
    "committed": "the record is refined, but not committed",
    "visible": "the record is committed, but a reader of the table does not see it",
}

Partition = tuple[str, int]


@dataclass(frozen=True)
class Asked:
    """What a user asks; no stream: all of them."""

    contracts: Path
    kafka: str
    lake: str
    pipeline: str
    kafka_config: Path | None = None
    cluster: str | None = None
    streams: tuple[str, ...] = ()
    timeout_seconds: float = 60.0


@dataclass
class Flight:
    """One stream's canary: where it went, and after how many seconds each stage was seen."""

    stream: str
    topic: str
    partition: int = 0
    offset: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # stage -> seconds since it was handed to Kafka's client
    failure: str = ""

    @property
    def over(self) -> bool:
        """Whether there is nothing more to wait for."""
        return bool(self.failure) or STAGES[-1] in self.seconds

    def see(self, stage: str, seconds: float) -> None:
        """Note that a stage was reached, and with it all before."""
        for reached in STAGES[: STAGES.index(stage) + 1]:
            self.seconds.setdefault(reached, round(seconds, 2))

    @property
    def stage(self) -> str:
        """Give the stage that is waited for."""
        return next(stage for stage in STAGES if stage not in self.seconds)

    def as_dict(self) -> dict[str, Any]:
        """Give the flight as plain values."""
        return asdict(self)


def fly(asked: Asked, allowed: Callable[[str], bool]) -> list[Flight]:
    """Send a canary down the topic of each stream, once `allowed` has said yes to what will be written.

    Streams that read one topic share its canary. Raises TidegateError, ContractError and what lakehouse.errors says
    about a lake that cannot be read; a canary that did not arrive is a flight with a failure.
    """
    lake = Lake.open(asked.lake, lake_options())
    contracts = _chosen(load_contracts(asked.contracts, dict(os.environ)), asked.streams)
    client = KafkaClient.from_file(asked.kafka_config, asked.kafka)
    parking = Parking(lake, asked.pipeline)
    existing = client.topics()
    flights = [Flight(contract.stream, _topic(contract, existing)) for contract in contracts]
    for flight in flights:
        if not flight.topic:
            flight.failure = f"{flight.stream}: none of its topics exists; create one, or correct the contract"
        elif (parked := parking.read(flight.stream)) is not None:
            flight.failure = f"{flight.stream} is parked, nothing was sent: {parked.reason}"
    topics = sorted({flight.topic for flight in flights if not flight.over})
    if topics and not allowed(_statement(topics)):
        raise TidegateError("nothing was sent: it needs a yes, or --yes where nobody can be asked")
    tracked = [
        Tracker(lake, asked, contract, flight)
        for contract, flight in zip(contracts, flights, strict=True)
        if not flight.over
    ]
    _send(client, topics, tracked, asked.timeout_seconds)
    _follow(tracked, asked)
    return flights


def _chosen(contracts: Sequence[Contract], streams: Sequence[str]) -> list[Contract]:
    unknown = sorted(set(streams) - {contract.stream for contract in contracts})
    if unknown:
        known = ", ".join(contract.stream for contract in contracts)
        raise UnknownStream(f"no contract describes the stream {', '.join(unknown)}: known are {known}")
    return [contract for contract in contracts if not streams or contract.stream in streams]


def _topic(contract: Contract, existing: Sequence[str]) -> str:
    """Give the first topic of a stream that is there; empty when none is."""
    own = (topic for topic in (contract.topics or sorted(existing)) if topic in existing and reads(contract, topic))
    return next(own, "")


def _statement(topics: Sequence[str]) -> str:
    return (
        f"This writes one record into partition 0 of {', '.join(topics)}: its value is null, its key begins with "
        f"{CANARY_KEY.decode()}. Tidegate counts it and stores no row; every other consumer of the topic gets it too."
    )


class Tracker:
    """Looks for one stream's canary, stage by stage."""

    def __init__(self, lake: Lake, asked: Asked, contract: Contract, flight: Flight) -> None:
        self.flight = flight
        self._lake = lake
        self._pipeline = asked.pipeline
        self._contract = contract
        self._since_ms = int(time.time() * 1000) - CLOCKS_DIFFER_MS
        self._seen = set(written_since(lake, self._since_ms))
        self._begun = 0.0

    def sent(self, begun: float, acknowledged: float, produced: float, offset: int) -> None:
        """Say when the record was handed over, and where it lies."""
        self._begun = begun
        self.flight.offset = offset
        self.flight.see("produced", produced - begun)
        self.flight.see("acknowledged", acknowledged - begun)

    def look(self) -> None:
        """Note the stages that have been reached; the latest first, for each has gone through those before."""
        standing = standing_of(self._lake, self._contract, self._pipeline)
        offset = self.flight.offset
        assert offset is not None
        committed = standing.progress.get((self.flight.topic, self.flight.partition), -1) >= offset
        if "refined" not in self.flight.seconds and (committed or self._refined(offset)):
            self._see("refined")
        if committed:
            self._see("committed")
            if self._visible(standing, offset):
                self._see("visible")

    def _see(self, stage: str) -> None:
        self.flight.see(stage, time.monotonic() - self._begun)

    def _refined(self, offset: int) -> bool:
        written = written_since(self._lake, self._since_ms)
        new = {path: size for path, size in written.items() if path not in self._seen}
        where = (self.flight.topic, self.flight.partition)
        found = any(covers(self._lake, path, size, self.flight.stream, where, offset) for path, size in new.items())
        self._seen |= new.keys()
        return found

    def _visible(self, standing: Standing, offset: int) -> bool:
        """Say whether a Delta reader that opens the stream's last table finds the progress of every lane there."""
        name = kinds_of(self._contract)[-1].table_name(self._contract.stream)
        topic, partition = self.flight.topic, self.flight.partition
        with self._lake.explained(f"read table {name}"):
            try:
                table = DeltaTable(self._lake.table_uri(name), storage_options=dict(self._lake.storage_options))
            except TableNotFoundError:
                return False
            number = standing.anchor.lanes if standing.anchor else 1
            ids = [app_id(self._pipeline, topic, partition, standing.epoch(topic), lane) for lane in lanes(number)]
            reached = [table.transaction_version(own) for own in ids]
        return all(version is not None and version >= offset for version in reached)


def _send(client: KafkaClient, topics: Sequence[str], trackers: Sequence[Tracker], seconds: float) -> None:
    """Write a canary to each topic and tell its trackers; a failure is the flight's."""
    if not topics:
        return
    with client.producer(acks="all") as producer:
        for topic in topics:
            producer.partitions_for(topic)  # connects, which is no part of the way
            own = [tracker for tracker in trackers if tracker.flight.topic == topic]
            key = CANARY_KEY + f'"{uuid.uuid4()}"}}'.encode()
            begun = time.monotonic()
            future = producer.send(topic, key=key, value=None, partition=0, headers=[("tidegate-canary", b"1")])
            produced = time.monotonic()
            try:
                told = future.get(timeout=seconds)
            except KafkaTimeoutError:
                for tracker in own:
                    tracker.flight.see("produced", produced - begun)
                    tracker.flight.failure = _stuck(tracker.flight, seconds)
                continue
            for tracker in own:
                tracker.sent(begun, time.monotonic(), produced, told.offset)


def _follow(trackers: Sequence[Tracker], asked: Asked) -> None:
    """Look until every canary was seen or the time is over."""
    end = time.monotonic() + asked.timeout_seconds
    while left := [tracker for tracker in trackers if not tracker.flight.over]:
        over = time.monotonic() > end
        for tracker in left:
            with suppress(RetryableError):  # the store is away: it may come back in time
                tracker.look()
            if over and not tracker.flight.over:
                tracker.flight.failure = _stuck(tracker.flight, asked.timeout_seconds) + _why(asked, tracker.flight)
        if not over:
            time.sleep(POLL_SECONDS)


def _stuck(flight: Flight, seconds: float) -> str:
    where = f"topic {flight.topic} partition {flight.partition}"
    where += f" offset {flight.offset}" if flight.offset is not None else ""
    return f"{flight.stream}: not {flight.stage} within {seconds:.0f} s: {STUCK[flight.stage]} ({where})"


def _why(asked: Asked, flight: Flight) -> str:
    """Give what is known to hold it up."""
    lake = Lake.open(asked.lake, lake_options())
    if (parked := Parking(lake, asked.pipeline).read(flight.stream)) is not None:
        return f"; the stream is parked: {parked.reason}"
    try:
        runs = running_job(lake, asked.pipeline, asked.cluster)
    except ClusterUnreachable as error:
        return f"; {error}"
    return "; see `tidegate status`" if runs else "; the job does not run, start it with `tidegate run`"


def show_flights(flights: Sequence[Flight], console: Console) -> None:
    """Print a row a stream: where its canary went, and the seconds of every stage."""
    table = Table("stream", "topic", "offset", *(f"{stage} (s)" for stage in STAGES))
    for flight in flights:
        times = [f"{flight.seconds[stage]:.2f}" if stage in flight.seconds else "-" for stage in STAGES]
        offset = "-" if flight.offset is None else str(flight.offset)
        table.add_row(flight.stream, f"{flight.topic}, partition {flight.partition}", offset, *times)
    console.print(table)

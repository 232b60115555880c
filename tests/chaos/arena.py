"""Everything that runs in a chaos run: Kafka, Flink, S3, the supervised job, the producer; and what is seen of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import obstore
import psutil

from contracts.load import load_contracts
from contracts.model import Contract
from jobs.cluster import Cluster
from jobs.credentials import lake_options
from jobs.errors import TidegateError
from jobs.kafka.client import KafkaClient
from jobs.kafka.topics import ensure_topics
from jobs.launch import Request
from jobs.stack import Stack, StackError
from lakehouse.errors import LakehouseError
from lakehouse.lake import Lake
from lakehouse.parking import Parking
from lakehouse.segments import FOLDER
from lakehouse.standing import standing_of
from tests.chaos.flow import Flow
from tests.chaos.inject.sitecustomize import VARIABLE
from tests.chaos.proxy import LossyProxy
from tests.chaos.records import FLOWING, PAYMENTS, TOPICS, Topic
from tests.chaos.writing import WRITERS, avro_schemas

HERE = Path(__file__).parent
CONTRACTS = HERE / "contracts"
PIPELINE = "chaos"
COMMIT_SECONDS = 2
REGISTRY = '\n  - {vendor: tidegate, property: registry, value: "${TIDEGATE_REGISTRY}"}'
REVIVE_SECONDS = 20.0  # between two starts of a TaskManager that ended by itself
# The product's own settings, but for the patience after a failure: here failures are the normal case.
FLINK = {
    "restart-strategy.exponential-delay.max-backoff": "2 s",
    "restart-strategy.exponential-delay.reset-backoff-threshold": "10 s",
}
Partition = tuple[str, int]


class Stalled(AssertionError):
    """Something that must happen did not happen in time."""


@dataclass(frozen=True)
class Place:
    """Where the tables lie (local or s3), and how the change events are written."""

    lake: str = "s3"
    encoding: str = "json"

    @classmethod
    def of(cls, seed: int) -> Place:
        """Give another one to each of six consecutive seeds."""
        return cls(("s3", "local")[seed % 2], tuple(WRITERS)[seed % 3])


class Arena:
    """The processes of one run; use it as a context manager, which stops all that it started."""

    def __init__(self, home: Path, seed: int, rate: float, records: int, place: Place) -> None:
        self.home = home.absolute()
        self.where, self.encoding = place.lake, place.encoding
        self._seed, self._rate, self._records = seed, rate, records
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._revived = 0.0
        components = [
            "kafka",
            *(["s3"] if place.lake == "s3" else []),
            *(["registry"] if place.encoding == "avro" else []),
        ]
        self._servers = Stack(self.home, components=components)
        self.proxy: LossyProxy | None = None  # in front of the S3 server
        self.stack = Stack(self.home, components=("flink",), settings={"flink": FLINK})
        self.flow: Flow

    def __enter__(self) -> Arena:
        self._before = dict(os.environ)
        self._open = ExitStack()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if "flow" in self.__dict__:
            self.flow.stop()
        if self._supervisor is not None:
            self._supervisor.kill()
            self._supervisor.wait()
        for frozen in self.stack.workers():
            with suppress(psutil.Error):
                frozen.send_signal(signal.SIGKILL)
        Stack(self.home).down()
        self._open.close()
        os.environ.clear()
        os.environ.update(self._before)

    def _start(self) -> None:
        for folder in ("armed", "fired"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        self._servers.up()
        os.environ.update({VARIABLE: str(self.home), "PYTHONPATH": str(HERE / "inject")})
        if self.where == "s3":
            self.proxy = self._open.enter_context(LossyProxy(self._servers.address("s3")))
            os.environ.update(self._servers.s3_environment | {"AWS_ENDPOINT_URL": f"http://{self.proxy.address}"})
        if self.encoding == "avro":
            self._servers.put_schemas(avro_schemas())
            os.environ["TIDEGATE_REGISTRY"] = self._servers.registry_url
        self._write_contracts()
        self.stack.up()
        ensure_topics(self.kafka, {topic.name: topic.partitions for topic in TOPICS})
        self._supervise()
        self.flow = Flow(self.stack.kafka_address, self._seed, self._rate, self._records, self.encoding)
        self.flow.start()

    def _write_contracts(self) -> None:
        """Write the contracts as they are, but for the encoding of the change events."""
        self._contracts.mkdir(exist_ok=True)
        registry = REGISTRY if self.encoding == "avro" else ""
        for contract in CONTRACTS.glob("*.yaml"):
            said = contract.read_text(encoding="utf-8")
            if contract.name == f"{PAYMENTS.stream}.odcs.yaml":
                said = said.replace(
                    "property: encoding, value: json}", f"property: encoding, value: {self.encoding}}}{registry}"
                )
            (self._contracts / contract.name).write_text(said, encoding="utf-8")

    @property
    def _contracts(self) -> Path:
        return self.home / "contracts"

    def _supervise(self) -> None:
        """Run the product's own command; it submits the job again when a JobManager's death takes it away."""
        command = [str(Path(sys.executable).parent / "tidegate"), "run", "--supervise", "--name", PIPELINE]
        command += ["--contracts", str(self._contracts), "--kafka", self.stack.kafka_address, "--lake", self.lake.uri]
        command += ["--cluster", self.stack.flink_address, "--commit-seconds", str(COMMIT_SECONDS)]
        with self.supervisor_log.open("ab") as log:
            self._supervisor = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def dismiss(self) -> None:
        """Let the supervisor go, before the job is stopped for good."""
        if self._supervisor is not None:
            self._supervisor.kill()
            self._supervisor.wait()
            self._supervisor = None

    def resubmitted(self) -> int:
        """Give how often the supervisor has submitted the job again."""
        return self.supervisor_log.read_text(encoding="utf-8", errors="replace").count("submitting it again")

    # --- what there is

    @cached_property
    def kafka(self) -> KafkaClient:
        """Administration of the broker."""
        return KafkaClient.from_file(None, self.stack.kafka_address)

    @cached_property
    def lake(self) -> Lake:
        """The lake under test."""
        uri = f"{self.stack.lake}/tables" if self.where == "s3" else str(self.home / "lake")
        return Lake.open(uri, lake_options())

    def directly(self) -> Lake:
        """Give the lake past the proxy.

        The proxy runs in this interpreter, whose lock deltalake's reader holds while it waits for the storage.
        """
        if self.where != "s3":
            return self.lake
        os.environ.update(self._servers.s3_environment)
        return Lake.open(self.lake.uri, lake_options())

    @cached_property
    def contracts(self) -> tuple[Contract, ...]:
        """The contracts of the streams."""
        return load_contracts(self._contracts)

    def request(self) -> Request:
        """Give what the supervisor was asked to run."""
        return Request(
            contracts=self._contracts,
            kafka=self.stack.kafka_address,
            lake=self.lake.uri,
            cluster=self.stack.flink_address,
            pipeline=PIPELINE,
            commit_seconds=COMMIT_SECONDS,
        )

    @property
    def supervisor_log(self) -> Path:
        """What `tidegate run --supervise` says."""
        return self.home / "supervisor.log"

    @contextmanager
    def environment(self, more: Mapping[str, str]) -> Iterator[None]:
        """Give processes that are started in the block more environment."""
        before = {name: os.environ.get(name) for name in more}
        os.environ.update(more)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

    def start_again(self, process: str, sweep: bool = True) -> None:
        """Start a dead process again as an operator would: a start that fails on a busy machine is tried again."""
        for left in range(2, -1, -1):
            try:
                self.stack.restart(process, sweep=sweep)
                return
            except StackError:
                if not left:
                    raise

    # --- what is seen

    def progress(self, topic: Topic) -> dict[int, int] | None:
        """Give the last committed offset by partition, from the Delta log; None while the lake cannot be read."""
        contract = next(c for c in self.contracts if c.stream == topic.stream)
        try:
            found = standing_of(self.lake, contract, PIPELINE).progress
        except LakehouseError:
            return None
        return {partition: last for (_, partition), last in found.items()}

    def committed(self, topics: Sequence[Topic] = FLOWING) -> int:
        """Give how many records of flowing topics are accounted for; -1 while the lake cannot be read."""
        for topic in topics:
            if (reason := self.parked(topic.stream)) is not None:
                raise Stalled(f"stream {topic.stream}, in which nothing was lost, is parked: {reason}")
        found = [self.progress(topic) for topic in topics]
        if any(progress is None for progress in found):
            return -1
        return sum(last + 1 for progress in found if progress for last in progress.values())

    def segments(self) -> list[tuple[str, float]]:
        """Give the stored segments' paths, and when each was stored (s since the epoch); raises LakehouseError."""
        with self.lake.explained("list the segments"):
            pages = obstore.list(self.lake.objects, prefix=f"{FOLDER}/")
            return [(entry["path"], entry["last_modified"].timestamp()) for page in pages for entry in page]

    def parked(self, stream: str) -> str | None:
        """Give why a stream is parked; None when it is not, or the lake cannot be read."""
        with suppress(LakehouseError):
            found = Parking(self.lake, PIPELINE).read(stream)
            return None if found is None else found.reason
        return None

    def reported(self, stream: str) -> str | None:
        """Give why a stream is parked, or what the job last failed with if that names the stream; None for neither."""
        if (reason := self.parked(stream)) is not None:
            return f"parked: {reason}"
        with suppress(TidegateError, httpx.HTTPError):
            cluster = Cluster(self.stack.flink_address)
            job = cluster.running(f"tidegate {PIPELINE}")
            reason = cluster.why_failed(job) if job else None
            return f"job failed: {reason}" if reason and f"stream {stream}:" in reason else None
        return None

    def events(self) -> list[dict[str, Any]]:
        """Give what the workers have said at chosen points."""
        path = self.home / "events.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    # --- waiting

    def until(self, what: str, done: Any, seconds: float, every: float = 0.5) -> Any:
        """Wait until done() gives something, and give it; raises Stalled, and when the supervisor has ended."""
        until = time.monotonic() + seconds
        while True:
            found = done()
            if found is not None and found is not False:
                return found
            self._revive()
            if self._supervisor is not None and self._supervisor.poll() is not None:
                raise Stalled(f"the supervisor ended by itself, with exit code {self._supervisor.returncode}")
            if time.monotonic() > until:
                raise Stalled(f"{what}: not within {seconds:.0f} s")
            time.sleep(every)

    def _revive(self) -> None:
        """Start a TaskManager that ended by itself, as an orchestrator would: a task that fails to close ends it."""
        down = [s for s in self.stack.status() if s.process == "taskmanager" and not s.running]
        if down and time.monotonic() - self._revived > REVIVE_SECONDS:
            self._revived = time.monotonic()
            self.stack.restart("taskmanager", wait=False)

    def moving(self, seconds: float = 240.0, topics: Sequence[Topic] = FLOWING) -> None:
        """Wait until records that were not committed when asked are committed."""
        before = self.until("the lake can be read", lambda: _known(self.committed(topics)), seconds)
        self.until("records are committed again", lambda: self.committed(topics) > before, seconds)

    def level(self, seconds: float) -> None:
        """Wait until all that was produced to the flowing topics is committed."""
        self.until("all records are committed", lambda: self.committed() == self.flow.total, seconds)


def _known(committed: int) -> int | None:
    return None if committed < 0 else committed

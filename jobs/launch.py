"""Submit a pipeline: read where the tables stand, hand Flink a fresh group with these offsets, run the job."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from contracts.load import load_contracts
from contracts.model import Contract
from jobs.cluster import Cluster
from jobs.credentials import key_ring, lake_options
from jobs.epochs import begin_epochs
from jobs.errors import RunRefused
from jobs.flink_client import submit_job
from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import fresh_group
from jobs.lanes import bring_lanes, finish_lanes
from jobs.settings import IngestSettings
from jobs.start import Asked, StartPlan, listed, plan_start
from lakehouse.epochs import forget_asked
from lakehouse.lake import Lake
from lakehouse.parking import Parking
from lakehouse.standing import unfit_tables
from udfs.keys import pinned_keys, require_keys

FOLDER = "_tidegate/pipelines"
JOB = Path(__file__).parent / "entry" / "ingest.py"


@dataclass(frozen=True)
class Request:
    """What a user asks to be run; paths and names only."""

    contracts: Path
    kafka: str
    lake: str
    cluster: str
    kafka_config: Path | None = None
    keys: Path | None = None
    pipeline: str = "main"
    new_epochs: tuple[str, ...] = ()
    accept_loss: bool = False
    commit_seconds: int = 5
    identity_seconds: float = 60.0
    discovery_seconds: float = 30.0
    freshness_seconds: float = 60.0

    def to_json(self) -> str:
        """Give the request as JSON, with absolute paths, so that it can be repeated from anywhere."""
        paths = {k: str(v.absolute()) if isinstance(v, Path) else v for k, v in self.__dict__.items()}
        return json.dumps(paths, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Give the request that to_json wrote."""
        read: dict[str, Any] = json.loads(text)
        for name in ("contracts", "kafka_config", "keys"):
            read[name] = Path(read[name]) if read[name] else None
        return cls(**{**read, "new_epochs": tuple(read["new_epochs"])})


class Launch:
    """One request, checked and ready to be submitted, any number of times.

    Raises ContractError, ValueError for missing mask keys, and OSError for files that cannot be read.
    """

    def __init__(self, request: Request, say: Callable[[str], None] = lambda _: None) -> None:
        self.request = request
        self._say = say  # told what is done before the job starts
        self.contracts: tuple[Contract, ...] = load_contracts(request.contracts, dict(os.environ))
        self.cluster = Cluster(request.cluster)
        self._keys = key_ring(str(request.keys) if request.keys else None)
        require_keys(self.contracts, self._keys)
        self.plan: StartPlan | None = None

    @cached_property
    def kafka(self) -> KafkaClient:
        """The Kafka client of the request."""
        return KafkaClient.from_file(self.request.kafka_config, self.request.kafka)

    @cached_property
    def lake(self) -> Lake:
        """The lake of the request."""
        return Lake.open(self.request.lake, lake_options())

    def prepare(self) -> StartPlan:
        """Decide where the job would begin; raises KafkaProblem, RunRefused and what lakehouse.errors says."""
        request = self.request
        self._release()
        self._verify_tables()
        asked = Asked(frozenset(request.new_epochs), request.accept_loss)
        self.plan = plan_start(self.contracts, self.lake, request.pipeline, self.kafka, asked)
        return self.plan

    def _verify_tables(self) -> None:
        """Raise RunRefused with all that keeps tables from becoming what their contracts want."""
        parked = {entry.stream for entry in Parking(self.lake, self.request.pipeline).all()}
        wanted = [(c, pinned_keys(c, self._keys)) for c in self.contracts if c.stream not in parked]
        if problems := unfit_tables(self.lake, self.request.pipeline, wanted):
            raise RunRefused(listed(problems))

    def bring_lanes(self) -> None:
        """Give each stream as many lanes as its contract wants; no job may run. Does nothing where it has them.

        Raises RunRefused, KafkaProblem and what lakehouse.errors says.
        """
        parked = {entry.stream for entry in Parking(self.lake, self.request.pipeline).all()}
        wanted = [contract for contract in self.contracts if contract.stream not in parked]
        bring_lanes(wanted, self.lake, self.request.pipeline, self.kafka, self._keys, self._say)

    def _begin_epochs(self) -> None:
        """Begin the epochs that are asked for in topics that stay the same.

        Raises RunRefused while a job of the pipeline runs, and as prepare and begin_epochs do.
        """
        pipeline = self.request.pipeline
        running = self.cluster.running(f"tidegate {pipeline}")
        if running is not None:
            raise RunRefused(f"job {running} of pipeline {pipeline} runs: cancel it before a new epoch begins")
        plan = self.prepare()
        begin_epochs(self.contracts, plan, self.lake, pipeline, self.kafka, self._keys, self._say)

    def _forget_asked(self, plan: StartPlan) -> None:
        """Tell the tables that this start asks for no epoch: the next one that does begins one."""
        contracts = {contract.stream: contract for contract in self.contracts}
        for stream, topic in plan.forget:
            forget_asked(self.lake, contracts[stream], self.request.pipeline, topic)

    def finish_lanes(self) -> None:
        """Complete what key changes between lanes have left open; no job may run. Raises what lakehouse.errors says."""
        parked = {entry.stream for entry in Parking(self.lake, self.request.pipeline).all()}
        for contract in self.contracts:
            if contract.stream not in parked:
                finish_lanes(contract, self.lake, self.request.pipeline, self._keys)

    def _release(self) -> None:
        """Let parked streams go on whose reason names the decision that the user has now made."""
        request, parking = self.request, Parking(self.lake, self.request.pipeline)
        decided = [f"--new-epoch {topic} " for topic in request.new_epochs]
        decided += ["--accept-loss "] if request.accept_loss else []
        for entry in parking.all() if decided else ():
            if any(decision in entry.reason for decision in decided):
                parking.unpark(entry.stream)

    def submit(self, *, again: bool = False) -> str:
        """Submit the job from where the tables stand now, and give its id. again: nobody decided anything anew.

        Raises what prepare raises, ClusterUnreachable and JobRefused.
        """
        self.cluster.overview()
        request = self.request
        if request.new_epochs:
            self._begin_epochs()
        self.bring_lanes()
        self.plan = self.prepare()
        if not again:
            self._forget_asked(self.plan)
        self.plan.keep(self.lake, request.pipeline)
        group = f"tidegate-{request.pipeline}-{uuid.uuid4().hex}"
        fresh_group(self.kafka, group, self.plan.offsets)
        settings = IngestSettings(
            pipeline=request.pipeline,
            contracts=str(request.contracts.absolute()),
            kafka=request.kafka,
            lake=self.lake.uri,
            group=group,
            kafka_config=str(request.kafka_config.absolute()) if request.kafka_config else None,
            keys=str(request.keys.absolute()) if request.keys else None,
            epochs=self.plan.epochs,
            accepted_losses=tuple((*partition, first) for partition, first in self.plan.accepted.items()),
            absent_topics=tuple(self.plan.absent),
            commit_seconds=request.commit_seconds,
            identity_seconds=request.identity_seconds,
            discovery_seconds=request.discovery_seconds,
            freshness_seconds=request.freshness_seconds,
        )
        job_id = submit_job(request.cluster, JOB, [settings.to_json()])
        record_run(self.lake, request, job_id, [contract.stream for contract in self.contracts])
        return job_id


def record_run(lake: Lake, request: Request, job_id: str, streams: Sequence[str]) -> None:
    """Keep in the lake which job runs the pipeline, for status, pause, resume and the next start."""
    asked = json.loads(request.to_json())
    entry = {"job": job_id, "submitted": time.time(), "streams": list(streams), "request": asked}
    lake.put(f"{FOLDER}/{request.pipeline}.json", json.dumps(entry).encode())


def running_job(lake: Lake, pipeline: str, cluster: str | None) -> tuple[str, str] | None:
    """Give the pipeline's running job and its cluster's address: the one named, else the one of its last run.

    None when none runs, or the pipeline never ran. Raises ClusterUnreachable when nobody can say.
    """
    entry = last_run(lake, pipeline)
    address = cluster or (entry["request"]["cluster"] if entry else None)
    job = Cluster(address).running(f"tidegate {pipeline}") if address else None
    return (job, address) if job and address else None


def last_run(lake: Lake, pipeline: str) -> Mapping[str, Any] | None:
    """Give what record_run kept: job, submitted (s since the epoch), streams, request; None when it was never run."""
    data = lake.get(f"{FOLDER}/{pipeline}.json")
    return json.loads(data) if data else None


def restart_if_running(lake: Lake, pipeline: str, cluster: str | None) -> str | None:
    """Cancel the pipeline's running job and submit it again from the Delta log; None when none runs.

    Raises RunRefused, and leaves the job alone, when the start would be refused. What was decided for an earlier start
    (new epochs, accepted losses) is not decided again.
    """
    entry = last_run(lake, pipeline)
    if entry is None:
        return None
    changed = {"new_epochs": (), "accept_loss": False, **({"cluster": cluster} if cluster else {})}
    launch = Launch(Request.from_json(json.dumps({**entry["request"], **changed})))
    running = launch.cluster.running(f"tidegate {pipeline}")
    if running is None:
        return None
    launch.prepare()
    launch.cluster.cancel(running)
    return launch.submit(again=True)

"""What the ingest job is told: one frozen object without secrets, given to the job as command line arguments."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from contracts.load import load_contracts
from contracts.model import Contract

VERSION = "0.1.0"


@dataclass(frozen=True)
class IngestSettings:
    """One pipeline: what it reads, where it writes, and how often it commits.

    Paths and names only: passwords and keys are read where they are needed, from files or the environment.
    """

    pipeline: str
    contracts: str  # directory
    kafka: str  # host:port[,host:port]
    lake: str  # URI
    group: str  # the fresh consumer group that holds the start offsets
    kafka_config: str | None = None  # path of a Kafka client properties file
    keys: str | None = None  # path of the mask key file
    epochs: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)  # stream, topic; where not 0
    accepted_losses: Sequence[tuple[str, int, int]] = ()  # topic, partition, the first offset not lost
    absent_topics: Sequence[str] = ()  # named by contracts of parked streams: Flink's source would fail for them
    commit_seconds: int = 5
    commit_lanes: int = 4  # parallel commit operators; a slow stream holds up only the others of its lane
    max_rows_per_commit: int = 2_000_000
    identity_seconds: float = 60.0  # between two looks at whether the topics are still the same
    discovery_seconds: float = 30.0  # between two looks for new partitions and topics
    freshness_seconds: float = 60.0  # between two looks at how fresh the streams are

    def to_json(self) -> str:
        """Give the settings as one JSON object."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> IngestSettings:
        """Give the settings that to_json wrote; raises TypeError for unknown names."""
        return cls(**json.loads(text))

    def load(self) -> tuple[Contract, ...]:
        """Load the pipeline's contracts; raises ContractError with all faults."""
        return load_contracts(Path(self.contracts), dict(os.environ))

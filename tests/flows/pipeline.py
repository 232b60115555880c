"""Run a pipeline in a test, and account for every record afterwards."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console

from contracts.load import load_contracts
from jobs.launch import Launch, Request
from jobs.stack import Stack
from jobs.watch import follow
from lakehouse.lake import Lake
from lakehouse.read import connect
from lakehouse.standing import Standing, standing_of


@dataclass
class Pipeline:
    """One pipeline of a test: its lake, its name, and what to do with it."""

    stack: Stack
    lake: Path | str
    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def request(self, contracts: Path, **changes: Any) -> Request:
        """Give the request that a user's command line would make."""
        given = {"commit_seconds": 1, **self.options, **changes}
        return Request(
            contracts=contracts,
            kafka=self.stack.kafka_address,
            lake=str(self.lake),
            cluster=self.stack.flink_address,
            pipeline=self.name,
            **given,
        )

    def catch_up(self, contracts: Path, **changes: Any) -> dict[str, Any]:
        """Submit the job, wait until all that Kafka holds is committed, stop it."""
        launch = Launch(self.request(contracts, **changes))
        job_id = launch.submit()
        try:
            return follow(launch, job_id, Console(file=io.StringIO()), until_caught_up=True, supervise=False)
        finally:
            if launch.cluster.running(f"tidegate {self.name}"):
                launch.cluster.cancel(job_id)

    def standing(self, contracts: Path, stream: str) -> Standing:
        """Give where a stream's tables stand."""
        contract = next(c for c in load_contracts(contracts) if c.stream == stream)
        return standing_of(Lake.open(str(self.lake)), contract, self.name)

    def query(self) -> duckdb.DuckDBPyConnection:
        """Give DuckDB with the lake's tables as views."""
        return connect(Lake.open(str(self.lake)))

    def counts(self, contracts: Path) -> dict[str, Counter[str]]:
        """Give per stream the counts that its tables keep."""
        found = {}
        for contract in load_contracts(contracts):
            anchor = standing_of(Lake.open(str(self.lake)), contract, self.name).anchor
            found[contract.stream] = Counter(anchor.counts if anchor else {})
        return found


def accounted(counts: Counter[str]) -> int:
    """Give how many records are in a table or counted by kind."""
    kinds = sum(number for name, number in counts.items() if name.startswith("kind."))
    return counts["applied"] + counts["quarantined"] + kinds

"""Random SQL on a real PostgreSQL: what a source may do to a pipeline, from one seed.

Every session has its own stream of random numbers, so that a seed gives the same transactions; how sessions interleave
is the database's. The kinds of transaction are in `statements`; the tables in schema.sql, their contracts beside it.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.flows.workload.statements import TABLES, TRANSACTIONS, Transaction, truncate
from tests.postgresql import run

HERE = Path(__file__).parent
CONTRACTS = HERE / "contracts"
CAPTURED = (*(table for table in TABLES if table != "readings"), "readings_2024", "readings_2025")
STREAMS = TABLES
ROLLED_BACK = 0.1  # share of transactions that end with ROLLBACK
TRUNCATED = 0.01


@dataclass
class Workload:
    """Random transactions on the tables of schema.sql."""

    url: str
    seed: int
    sessions: int = 3
    keys: int = 40  # of each table: few, so that keys come back and sessions meet
    truncates: bool = False
    done: Counter[str] = field(default_factory=Counter)  # committed, by kind; rolled back; refused by the database
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _runs: int = field(default=0, repr=False)
    _faults: list[BaseException] = field(default_factory=list, repr=False)

    def create(self) -> None:
        """Make the tables, with some rows for a snapshot."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            run(connection, (HERE / "schema.sql").read_text(encoding="utf-8"))
            self._session(connection, random.Random(f"{self.seed}-rows"), 60)

    def run(self, transactions: int) -> Counter[str]:
        """Run so many transactions in each session, all sessions at once; give what was done so far."""
        self._runs += 1
        threads = [threading.Thread(target=self._run, args=(n, transactions)) for n in range(self.sessions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._faults:
            raise self._faults[0]
        return Counter(self.done)

    def _run(self, number: int, transactions: int) -> None:
        try:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute("SET lock_timeout = '2s'")
                self._session(connection, random.Random(f"{self.seed}-{self._runs}-{number}"), transactions)
        except BaseException as error:  # told by run()
            self._faults.append(error)

    def _session(self, connection: psycopg.Connection[Any], chance: random.Random, transactions: int) -> None:
        for _ in range(transactions):
            kind: Transaction = chance.choice(TRANSACTIONS)
            if self.truncates and chance.random() < TRUNCATED:
                kind = truncate
            rolled_back = chance.random() < ROLLED_BACK
            # Locks and unique keys: what another session did decides, as it would in life.
            try:
                with connection.transaction(force_rollback=rolled_back):
                    kind(connection, chance, self.keys)
                self._count("rolled back" if rolled_back else kind.__name__)
            except (psycopg.errors.IntegrityError, psycopg.errors.OperationalError) as error:
                if connection.closed:
                    raise
                self._count(f"refused: {type(error).__name__}")

    def _count(self, what: str) -> None:
        with self._lock:
            self.done[what] += 1


def write_contracts(folder: Path, encoding: str = "json", streams: Sequence[str] = STREAMS, **instead: str) -> Path:
    """Write the contracts of some streams for an encoding, with other text `instead` of some, and give the folder.

    Topics begin with $WORKLOAD_PREFIX, else `work`; the registry of Avro is $TIDEGATE_REGISTRY.
    """
    folder.mkdir(parents=True, exist_ok=True)
    registry = f"\n  - {{vendor: tidegate, property: registry, value: {os.environ.get('TIDEGATE_REGISTRY', '')}}}"
    for stream in streams:
        text = (CONTRACTS / f"{stream}.odcs.yaml").read_text(encoding="utf-8")
        given = f"property: encoding, value: {encoding}}}" + (registry if encoding == "avro" else "")
        text = text.replace("property: encoding, value: json}", given)
        for old, new in instead.items():
            text = text.replace(old, new)
        (folder / f"{stream}.odcs.yaml").write_text(text, encoding="utf-8")
    return folder

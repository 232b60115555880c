"""The demo: real Kafka, real Flink, real change data; from an empty folder to tables that answer queries."""

from __future__ import annotations

import base64
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from contracts.model import Contract
from jobs.kafka.client import KafkaClient
from jobs.kafka.load import load_files
from jobs.launch import Launch, Request
from jobs.query import run_query, show_result
from jobs.stack import Stack
from jobs.stack.jars import PROJECT
from jobs.watch import follow
from lakehouse.lake import Lake
from lakehouse.standing import Standing, standing_of

SAMPLE = Path(__file__).parent / "sample.jsonl.gz"
CONTRACTS = PROJECT / "contracts" / "shop"
PIPELINE = "demo"
COMMIT_SECONDS = 2
CURRENT = """
SELECT id, left(email, 12) || '...' || regexp_extract(email, '@.*') AS email, name, status, balance, _op, _event_time
FROM users ORDER BY id LIMIT 8
"""
VERSIONS = """
SELECT id, status, balance, _op, _valid_from, _valid_to, _is_current
FROM users_history
QUALIFY count(*) OVER (PARTITION BY id) BETWEEN 2 AND 4
ORDER BY id, _valid_from LIMIT 8
"""
REJECTED = """
SELECT _topic AS topic, _partition AS part, _offset AS "offset", _stage AS stage,
       array_to_string(_rules, ', ') AS rules, _reason AS reason
FROM (FROM users_quarantine UNION ALL BY NAME FROM orders_quarantine UNION ALL BY NAME FROM products_quarantine)
ORDER BY ALL
"""


def run_demo(console: Console, *, home: Path, lake: str | None, keep: bool) -> None:
    """Run the whole chain and print what came of it; stops what it started unless told to keep it."""
    home = home.absolute()
    clear_home(home)
    uri = f"{lake.rstrip('/')}/demo-{time.strftime('%Y%m%d-%H%M%S')}" if lake else str(home / "lake")
    keys = new_keys(home / "keys")
    with Stack(home, components=("kafka", "flink")) as stack:
        console.print(f"Kafka at {stack.kafka_address}, Flink dashboard http://{stack.flink_address}", highlight=False)
        kafka = KafkaClient.from_file(None, stack.kafka_address)
        counts = load_files([SAMPLE], kafka, console=console)
        console.print(f"loaded {sum(counts.values())} real Debezium messages and a few broken ones", highlight=False)
        launch = Launch(
            Request(
                contracts=CONTRACTS,
                kafka=stack.kafka_address,
                lake=uri,
                cluster=stack.flink_address,
                keys=keys,
                pipeline=PIPELINE,
                commit_seconds=COMMIT_SECONDS,
            )
        )
        job_id = launch.submit()
        follow(launch, job_id, console, until_caught_up=True, supervise=False)
        _show(console, launch.contracts, launch.lake)
        console.print(f"tables: {uri}\ndashboard: http://{stack.flink_address}", highlight=False)
        if keep:
            stack.keep()
            console.print(
                f"left running; stop it with `tidegate stack down --home {home}`; "
                f"ask more with `tidegate query SQL --lake {uri}`",
                highlight=False,
            )


def clear_home(home: Path) -> None:
    """Begin from nothing: stop a demo that was kept, and remove what it left."""
    if (home / "state.json").exists():
        Stack(home).down()
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)


def new_keys(path: Path) -> Path:
    """Write a key file with one fresh key, `demo`, and give its path."""
    path.touch(mode=0o600)
    path.write_text(f"demo = {base64.b64encode(secrets.token_bytes(32)).decode()}\n", encoding="utf-8")
    return path


def _show(console: Console, contracts: Sequence[Contract], lake: Lake) -> None:
    summary = Table(
        "stream", "read", "applied", "quarantined", "by rule", "late", "counted only", "commit latency",
        title="What was read and what became of it", title_justify="left",
    )  # fmt: skip
    for contract in contracts:
        standing = standing_of(lake, contract, PIPELINE)
        counts = standing.anchor.counts if standing.anchor else {}
        rules, kinds = _tally(counts, "rejected."), _tally(counts, "kind.")
        latency = _latency_ms(standing, contract, lake)
        numbers = (str(counts.get(name, 0)) for name in ("read", "applied", "quarantined"))
        summary.add_row(
            contract.stream, *numbers, rules, str(counts.get("late", 0)), kinds,
            "-" if latency is None else f"{latency / 1000:.1f} s",
        )  # fmt: skip
    console.print(summary)
    for title, sql in (
        ("Current users, masked (DuckDB)", CURRENT),
        ("Versions of some users (DuckDB)", VERSIONS),
        ("Quarantined, and why (DuckDB)", REJECTED),
    ):
        show_result(*run_query(sql, lake.uri), console, title)


def _latency_ms(standing: Standing, contract: Contract, lake: Lake) -> float | None:
    """Give how long the last commit came after its records had been read from Kafka."""
    if standing.committed_at_ms is None:
        return None
    read = f"SELECT max(epoch_ms(_ingested_at)) FROM {contract.stream}_changes"
    newest = run_query(read, lake.uri)[1][0][0]
    return None if newest is None else float(standing.committed_at_ms - newest)


def _tally(counts: Mapping[str, int], prefix: str) -> str:
    return ", ".join(
        f"{name.removeprefix(prefix)} {n}" for name, n in sorted(counts.items()) if name.startswith(prefix)
    )

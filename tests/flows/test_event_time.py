"""Windows over a disorderly topic on the real cluster: one partition an hour behind, an idle one, wrong clocks, a burst
of very late rows, a connector that sends again, a worker and a TaskManager killed with windows open. Then each row
counts once in each of its windows, or stands in <stream>_late, and Flink's watermark is the stream's."""

from __future__ import annotations

import base64
import json
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Producer

from contracts.load import load_contracts
from jobs.cluster import Cluster
from jobs.kafka.client import KafkaClient
from jobs.kafka.topics import ensure_topics
from lakehouse.lake import Lake
from tests.flows.pipeline import Pipeline
from tests.flows.streams import rest, running, until, write_contract
from tests.lakehouse.aggregates.truth import expected, held, rows_of

pytestmark = pytest.mark.integration

TOPIC = "shop.orders"
PARTITIONS, COUNT = 4, 3_000  # partition 3 stays empty; events of each other one
DISORDER, LATENESS = 2_000, 4_000  # ms
STEP = 40  # ms of event time between two events of a partition
HOUR = 3_600_000
COLUMNS = (
    {"name": "id", "logicalType": "integer", "physicalType": "bigint", "primaryKey": True, "required": True},
    {"name": "state", "logicalType": "string", "physicalType": "text"},
    {"name": "amount", "logicalType": "number", "physicalType": "numeric(12,2)"},
    {"name": "paid_at", "logicalType": "timestamp", "physicalType": "timestamptz"},
)
AGGREGATES = [
    {"name": "per_second", "window": {"type": "tumble", "size": "1 s"}, "groupBy": ["state"],
     "where": "op in ('c', 'u')", "measures": {"orders": "count()", "revenue": "sum(amount)", "biggest": "max(amount)",
                                               "states": "approx_distinct(state)"}},
    {"name": "sliding", "window": {"type": "hop", "size": "10 s", "slide": "5 s"}, "measures": {"orders": "count()"}},
    {"name": "visits", "window": {"type": "session", "gap": "2 s"}, "groupBy": ["state"],
     "measures": {"orders": "count()"}},
    {"name": "stock", "window": {"type": "tumble", "size": "1 minute"}, "groupBy": ["state"], "over": "current",
     "measures": {"number": "count()", "worth": "sum(amount)"}},
]  # fmt: skip


class Orders:
    """What a connector sends of a table whose rows are paid for at odd times."""

    def __init__(self, bootstrap: str, begins: int) -> None:
        self.random = random.Random(11)
        self.begins = begins
        self.sent: dict[int, list[dict[str, Any]]] = {p: [] for p in range(3)}
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 10}, logger=None)

    def event(self, partition: int, paid_ms: int) -> dict[str, Any]:
        number = len(self.sent[partition])
        lsn = 1_000 + number * 3 + partition
        key = partition + 3 * (number // 2 if number % 5 == 0 else number)  # some rows change
        source = {"connector": "postgresql", "lsn": lsn, "sequence": json.dumps([str(lsn)] * 2), "ts_ms": paid_ms}
        paid_at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(paid_ms // 1000)) + f".{paid_ms % 1000:03}Z"
        amount = base64.b64encode(self.random.randint(1, 10**6).to_bytes(4, "big")).decode()  # as Debezium writes it
        row = {"id": key, "state": self.random.choice("abcde"), "amount": amount, "paid_at": paid_at}
        return {"before": None, "after": row, "op": "c" if number % 5 else "u", "source": source}

    def write(self, first: int, last: int, partitions: tuple[int, ...] = (0, 1, 2)) -> None:
        """Send events of each partition, out of order by DISORDER + LATENESS at most; partition 2 is an hour behind."""
        for partition in partitions:
            behind = HOUR if partition == 2 else 0
            for number in range(first, last):
                back = self.random.choice([0, 0, self.random.randint(0, DISORDER + LATENESS)])
                self._send(partition, self.event(partition, self.begins + number * STEP - back - behind))
        assert self._producer.flush(30) == 0

    def again(self, partition: int, count: int) -> None:
        """Send the newest events of a partition a second time."""
        for event in self.sent[partition][-count:]:
            self._producer.produce(TOPIC, key=self._key(event), value=json.dumps(event), partition=partition)
        assert self._producer.flush(30) == 0

    def strange(self, partition: int, paid_ms: int, count: int) -> None:
        for _ in range(count):
            self._send(partition, self.event(partition, paid_ms))
        assert self._producer.flush(30) == 0

    def _send(self, partition: int, event: dict[str, Any]) -> None:
        self.sent[partition].append(event)
        self._producer.produce(TOPIC, key=self._key(event), value=json.dumps(event), partition=partition)
        self._producer.poll(0)

    @staticmethod
    def _key(event: dict[str, Any]) -> str:
        return json.dumps({"id": event["after"]["id"]})


def test_each_row_counts_once_in_its_windows_whatever_the_disorder_and_whatever_dies(
    pipeline: Pipeline, kafka: KafkaClient, tmp_path: Path
) -> None:
    ensure_topics(kafka, {TOPIC: PARTITIONS})
    event_time = {"field": "paid_at", "outOfOrderness": f"{DISORDER} ms", "idleTimeout": "20 s",
                  "maxFutureSkew": "1 minute", "allowedLateness": f"{LATENESS} ms"}  # fmt: skip
    contracts = write_contract(
        tmp_path / "contracts", "orders", TOPIC, COLUMNS, envelope="debezium", eventTime=event_time,
        tables=["quarantine", "changes", "current"], aggregates=AGGREGATES,
    )  # fmt: skip
    now = int(time.time() * 1000)
    orders = Orders(pipeline.stack.kafka_address, now - 2 * HOUR)
    orders.write(0, COUNT // 3)
    with running(pipeline, contracts) as (launch, job_id):
        until("the first windows", lambda: rows_of(Lake.open(str(pipeline.lake)), "orders_per_second"))
        orders.strange(0, now + 10 * HOUR, 20)  # a wrong clock
        orders.write(COUNT // 3, 2 * COUNT // 3)
        with suppress(psutil.NoSuchProcess):
            sorted(until("Python workers run", pipeline.stack.workers), key=lambda w: w.pid)[0].kill()
        orders.again(1, 200)
        pipeline.stack.kill("taskmanager")
        pipeline.stack.restart("taskmanager")
        orders.write(2 * COUNT // 3, COUNT)
        total = sum(map(len, orders.sent.values())) + 200
        until("all is committed", lambda: committed(pipeline, contracts) == total)
        assert rows_of(Lake.open(str(pipeline.lake)), "orders_late") == [], "within the bounds nothing is late"
        orders.write(COUNT, COUNT + 800, partitions=(0, 1))  # partition 2 falls silent, and is idle at last
        time.sleep(25)
        orders.strange(1, orders.begins + (COUNT + 800) * STEP, 1)
        orders.strange(0, orders.begins + (COUNT + 800) * STEP, 1)
        until("the watermark passes the hour", lambda: watermark(pipeline, contracts) > orders.begins)
        orders.strange(2, orders.begins - HOUR, 50)  # and comes back, with a burst of very late rows
        total = sum(map(len, orders.sent.values())) + 200
        until("all is committed", lambda: committed(pipeline, contracts) == total)
        durable = watermark(pipeline, contracts)
        until("Flink's watermark is the stream's", lambda: durable in flinks(launch.cluster, job_id), 30.0)
    check(pipeline, contracts)


def committed(pipeline: Pipeline, contracts: Path) -> int:
    return sum(last + 1 for last in pipeline.standing(contracts, "orders").progress.values())


def watermark(pipeline: Pipeline, contracts: Path) -> int:
    anchor = pipeline.standing(contracts, "orders").anchor
    return (anchor.watermark_ms if anchor else None) or 0


def flinks(cluster: Cluster, job_id: str) -> set[int]:
    """Give the watermarks (ms) that the dashboard shows, of all operators and subtasks."""
    found = set()
    for vertex in rest(cluster, f"/jobs/{job_id}")["vertices"]:
        found |= {int(entry["value"]) for entry in rest(cluster, f"/jobs/{job_id}/vertices/{vertex['id']}/watermarks")}
    return found


def check(pipeline: Pipeline, contracts: Path) -> None:
    """Compare every aggregate with the truth, worked out row by row and, over current, by DuckDB."""
    lake = Lake.open(str(pipeline.lake))
    [contract] = load_contracts(contracts)
    changes, late = rows_of(lake, "orders_changes"), rows_of(lake, "orders_late")
    assert {one["_why"] for one in late} == {"late"} and {one["_partition"] for one in late} == {2}
    assert len({(one["_partition"], one["_offset"]) for one in late}) == 50
    for aggregate in contract.aggregates[:3]:
        missed = [one for one in late if one["_aggregate"] == aggregate.name]
        counted = [row for row in changes if not row["_resent"]]
        assert held(aggregate, rows_of(lake, f"orders_{aggregate.name}")) == expected(aggregate, counted, missed)
    with pipeline.query() as duck:
        duck.execute("SET TimeZone = 'UTC'")
        wanted = "time_bucket(INTERVAL 1 minute, paid_at), state, count(*), sum(amount) FROM orders GROUP BY ALL"
        got = "window_start, state, number, worth FROM orders_stock"
        assert duck.execute(f"(SELECT {wanted}) EXCEPT ALL (SELECT {got})").fetchall() == []
        assert duck.execute(f"(SELECT {got}) EXCEPT ALL (SELECT {wanted})").fetchall() == []

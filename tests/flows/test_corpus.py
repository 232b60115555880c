"""The whole corpus through the real cluster: each message once, the tables PostgreSQL held, equal in all encodings."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from contracts.columns import changes_schema
from contracts.load import load_contracts
from contracts.model import Contract
from jobs.routing import reads
from jobs.stack import Stack
from lakehouse.lake import Lake
from lakehouse.quarantine import quarantine_schema
from lakehouse.standing import standing_of
from tests import corpus
from tests.corpus_truth import (
    ENCODINGS,
    KEYLESS,
    TABLES,
    WRONG_KEYS,
    Row,
    comparable,
    differing,
    distinct,
    without,
    wrong,
)
from tests.corpus_truth import versions as changelog
from tests.flows.pipeline import Pipeline, accounted

pytestmark = pytest.mark.integration

CONTRACTS = Path(__file__).parents[1] / "data" / "contracts"
COORDINATES = ("_topic", "_partition", "_offset")
KINDS = {"heartbeat": "kind.heartbeat", "transaction": "kind.transaction", "message": "kind.message"}


@dataclass
class Run:
    """One encoding of the corpus in a lake of its own."""

    encoding: str
    pipeline: Pipeline

    @property
    def folder(self) -> Path:
        return CONTRACTS / self.encoding

    @cached_property
    def contracts(self) -> dict[str, Contract]:
        return {c.stream: c for c in load_contracts(self.folder, dict(os.environ))}

    @cached_property
    def counts(self) -> Mapping[str, Counter[str]]:
        return self.pipeline.counts(self.folder)

    @cached_property
    def tables(self) -> dict[str, pa.Table]:
        """All tables as DuckDB reads them."""
        with self.pipeline.query() as duck:
            names = [
                name for (name,) in duck.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
            ]
            return {
                name: duck.execute(f'FROM "{name}" ORDER BY {", ".join(COORDINATES)}').to_arrow_table()
                for name in names
            }

    def contract(self, table: str) -> Contract:
        return self.contracts[table.lower().replace(" ", "_")]

    def changes(self, table: str) -> list[Row]:
        rows: list[Row] = self.tables[f"{self.contract(table).stream}_changes"].to_pylist()
        return rows

    def state(self, table: str) -> dict[tuple[object, ...], Row]:
        """Give the current table by key."""
        contract = self.contract(table)
        return {tuple(row[f.name] for f in contract.key): row for row in self.tables[contract.stream].to_pylist()}

    def history(self, table: str) -> list[Row]:
        rows: list[Row] = self.tables[f"{self.contract(table).stream}_history"].to_pylist()
        return rows


@pytest.fixture(scope="module")
def runs(corpus_in_kafka: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Each encoding run once, all 24 streams in one job."""
    lakes = {encoding: tmp_path_factory.mktemp(encoding) / "lake" for encoding in ENCODINGS}
    made = {e: Run(e, Pipeline(corpus_in_kafka, lake, f"corpus-{e}")) for e, lake in lakes.items()}
    for run in made.values():
        assert run.pipeline.catch_up(run.folder)["parked"] == []
    return made


@pytest.fixture(params=ENCODINGS)
def run(request: pytest.FixtureRequest, runs: dict[str, Run]) -> Run:
    return runs[request.param]


def test_every_message_is_in_a_table_or_counted_by_kind(run: Run) -> None:
    expected: dict[str, Counter[str]] = defaultdict(Counter)
    for topic in corpus.topics(run.encoding):
        (stream,) = [c.stream for c in run.contracts.values() if reads(c, topic)]
        for message in corpus.messages(run.encoding, topic):
            expected[stream][_outcome(topic, message)] += 1
    found = {
        stream: Counter({k: n for k, n in counts.items() if k in ("applied", "quarantined") or k.startswith("kind.")})
        for stream, counts in run.counts.items()
    }
    assert {stream: +counts for stream, counts in found.items()} == expected
    assert sum(accounted(counts) for counts in run.counts.values()) == corpus.MESSAGES
    assert sum(counts["read"] for counts in run.counts.values()) == corpus.MESSAGES


def test_each_data_message_is_in_exactly_one_row(run: Run) -> None:
    data: Counter[tuple[str, int, int]] = Counter()
    for topic in corpus.topics(run.encoding):
        for message in corpus.messages(run.encoding, topic):
            if _outcome(topic, message) == "applied":
                data[topic, message["partition"], message["offset"]] += 1
    held: Counter[tuple[str, int, int]] = Counter()
    for name, table in run.tables.items():
        if not name.endswith(("_changes", "_quarantine")):
            continue
        held.update(zip(*(table[name].to_pylist() for name in COORDINATES), strict=True))
    assert held == data


def test_progress_is_at_the_last_message_of_each_partition(run: Run) -> None:
    lake = Lake.open(str(run.pipeline.lake))
    for contract in run.contracts.values():
        last: dict[tuple[str, int], int] = {}
        for topic in (t for t in corpus.topics(run.encoding) if reads(contract, t)):
            last |= {(topic, m["partition"]): m["offset"] for m in corpus.messages(run.encoding, topic)}
        assert standing_of(lake, contract, run.pipeline.name).progress == last


def test_duckdb_and_deltalake_read_the_same(run: Run) -> None:
    lake = Lake.open(str(run.pipeline.lake))
    kept = {f"{s}_{kind}" for s in run.contracts for kind in ("changes", "quarantine")}
    keyed = {s for s, c in run.contracts.items() if c.key}
    assert set(run.tables) == kept | keyed | {f"{s}_history" for s in keyed}
    for stream, contract in run.contracts.items():
        quarantined = f"{stream}_quarantine", quarantine_schema(contract)
        for name, schema in ((f"{stream}_changes", changes_schema(contract)), quarantined):
            table = DeltaTable(lake.table_uri(name)).to_pyarrow_table()
            assert set(table.column_names) == set(schema.names)
            ordered = table.sort_by([(column, "ascending") for column in COORDINATES])
            assert _values(ordered, schema) == _values(run.tables[name], schema)


def test_current_tables_equal_the_truth_but_for_the_documented_facts(run: Run) -> None:
    tables = [t for t in TABLES if t not in KEYLESS and t not in WRONG_KEYS]
    found = {t: differing(run.encoding, t, run.contract(t), run.state(t)) for t in tables}
    assert found == {t: set(wrong(run.encoding, t)) for t in tables}
    assert [row for t in tables for row in run.state(t).values() if row["_pending"] or row["_stale"]] == []


def test_history_is_the_changelog_and_its_open_versions_are_current(run: Run) -> None:
    for table in (t for t in TABLES if t not in KEYLESS):
        names = [f.name for f in run.contract(table).fields]
        versions = run.history(table)
        opened = {tuple(repr(v[n]) for n in names) for v in versions if v["_is_current"]}
        assert opened == {tuple(repr(row[n]) for n in names) for row in run.state(table).values()}, table
        key = [f.name for f in run.contract(table).key]
        assert len(versions) == changelog(run.changes(table), key, names), table
        assert all(v["_valid_to"] is None or v["_valid_from"] <= v["_valid_to"] for v in versions), table


def test_the_leaves_of_a_partitioned_table_hold_what_its_parent_does_not(run: Run) -> None:
    # Fact 12: the snapshot comes twice, later changes only on the leaves.
    assert WRONG_KEYS["metrics"] == 12
    assert {row["_op"] for row in run.changes("metrics")} == {"r"}
    leaves = run.state("metrics_2024") | run.state("metrics_2025")
    assert differing(run.encoding, "metrics", run.contract("metrics"), leaves) == set()


def test_keys_of_an_index_identity_are_wrong_only_where_deletes_name_key_0(run: Run) -> None:
    assert WRONG_KEYS["idx_ident"] == 1
    true = {(row["id"],) for row in corpus.expected("idx_ident")}
    assert true < set(run.state("idx_ident"))
    assert {row["id"] for row in run.changes("idx_ident") if row["_op"] == "d"} == {0}


def test_tables_without_a_key_hold_as_many_rows_as_the_truth(run: Run) -> None:
    # Which row an update replaced is not in its new values; how many rows there are, and which could be, is.
    full, expected = run.changes("audit_full"), corpus.expected("audit_full")
    ops = Counter(row["_op"] for row in full)
    assert ops["r"] + ops["c"] - ops["d"] == len(expected)
    assert {(row["actor"], row["what"]) for row in expected} <= {(row["actor"], row["what"]) for row in full}
    last = max(run.changes("audit_nopk"), key=lambda row: (row["_position_major"] or -1, row["_position_minor"]))
    assert (last["_op"], corpus.expected("audit_nopk")) == ("t", [])


def test_what_a_killed_connector_sent_again_is_kept_and_flagged(run: Run) -> None:
    # Fact 15: 22 row events.
    assert sum(row["_resent"] for t in TABLES for row in run.changes(t)) == 22


@pytest.mark.parametrize("table", TABLES)
def test_the_three_encodings_give_equal_tables(runs: dict[str, Run], table: str) -> None:
    rows = {e: distinct(comparable(row, r.contract(table)) for row in r.changes(table)) for e, r in runs.items()}
    assert rows["json-schema"] == rows["avro"]
    if table == "orders":  # fact 6: schemaless JSON does not say that the scale of `amount` changed
        assert without(rows["json"], "amount") == without(rows["avro"], "amount")
    else:
        assert rows["json"] == rows["avro"]


def _outcome(topic: str, message: corpus.Message) -> str:
    """Give where a message must end, by the topic it is in and whether it has a value (no decoding)."""
    if topic.startswith("__debezium-heartbeat"):
        return "kind.heartbeat"
    if ".public." not in topic:
        return f"kind.{topic.rpartition('.')[2]}"
    return "kind.tombstone" if message["value"] is None else "applied"


def _values(table: pa.Table, schema: pa.Schema) -> list[Row]:
    rows: list[Row] = table.select(schema.names).cast(schema).to_pylist()
    return [{name: repr(value) for name, value in row.items()} for row in rows]

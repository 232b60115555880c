"""The tables of the corpus, made in process: what PostgreSQL held, in each encoding, however partitions interleave."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from contracts.load import load_contract
from contracts.model import Contract
from lakehouse.lake import Lake
from lakehouse.segments import Range, Section
from tests import corpus
from tests.corpus_truth import ENCODINGS, KEYLESS, TABLES, WRONG_KEYS, Row, differing, versions, wrong
from tests.lakehouse.rows import NOW, no_gaps, tables, write
from tests.reading import reader
from udfs.keys import KeyRing
from udfs.refine import refine

CONTRACTS = Path(__file__).parents[2] / "data" / "contracts"
COMMITS = 4


def _records(contract: Contract, encoding: str) -> pa.Table:
    wanted = [
        t for t in corpus.topics(encoding) if t in contract.topics or re.fullmatch(contract.topic_pattern or "", t)
    ]
    whole = pa.concat_tables([corpus.records(encoding, topic) for topic in wanted])
    return whole.sort_by([(name, "ascending") for name in ("topic", "partition", "offset")])


def _section(contract: Contract, records: pa.Table) -> Section:
    made = refine(records, contract, corpus.schema, KeyRing({}), NOW)
    grouped = records.group_by(["topic", "partition"]).aggregate(
        [("offset", "min"), ("offset", "max"), ("offset", "count")]
    )
    ranges = tuple(
        Range(r["topic"], r["partition"], r["offset_min"] - 1 if r["offset_min"] else None, r["offset_min"],
              r["offset_max"], r["offset_count"])
        for r in grouped.to_pylist()
    )  # fmt: skip
    return Section(contract.stream, made.rows, made.rejects, made.others, ranges, made.withheld)


def _commit(lake: Lake, contract: Contract, encoding: str, chance: random.Random) -> None:
    """Commit a stream's records in several commits, each with another stretch of every partition."""
    records = _records(contract, encoding)
    places = list(zip(records["topic"].to_pylist(), records["partition"].to_pylist(), strict=True))
    counts = {place: places.count(place) for place in places}
    cuts = {place: sorted(chance.randint(0, n) for _ in range(COMMITS - 1)) for place, n in counts.items()}
    seen = dict.fromkeys(counts, 0)
    turns = []
    for place in places:
        turns.append(sum(seen[place] >= cut for cut in cuts[place]))
        seen[place] += 1
    for turn in range(COMMITS):
        part = records.filter(pc.equal(pa.array(turns), turn))
        if len(part):
            made = _section(contract, part)
            tables(lake, contract).commit(write(lake, made), gaps=no_gaps, now_ms=NOW)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_current_is_the_truth_and_history_its_changelog(local: Lake, encoding: str) -> None:
    chance = random.Random(encoding)
    found: dict[str, set[str]] = {}
    for table in (t for t in TABLES if t not in KEYLESS):
        contract = load_contract(CONTRACTS / encoding / f"{table.lower().replace(' ', '_')}.odcs.yaml")
        _commit(local, contract, encoding, chance)
        duck = reader(local)
        current, history = (
            duck.execute(f'SELECT * FROM "{contract.stream}{suffix}"').to_arrow_table().to_pylist()
            for suffix in ("", "_history")
        )
        key, names = [f.name for f in contract.key], [f.name for f in contract.fields]
        state: dict[tuple[object, ...], Row] = {tuple(row[n] for n in key): row for row in current}
        assert not [row for row in current if row["_pending"] or row["_stale"]], table
        if table not in WRONG_KEYS:
            found[table] = differing(encoding, table, contract, state)
        opened = {tuple(repr(v[n]) for n in names) for v in history if v["_is_current"]}
        assert opened == {tuple(repr(row[n]) for n in names) for row in current}, table
        changes = DeltaTable(local.table_uri(f"{contract.stream}_changes")).to_pyarrow_table().to_pylist()
        assert len(history) == versions(changes, key, names), table
    assert found == {table: set(wrong(encoding, table)) for table in found}

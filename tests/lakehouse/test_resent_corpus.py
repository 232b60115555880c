"""The real thing: a connector killed with kill -9 sent 22 row events again (cdc-corpus fact 15)."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest

from contracts.load import load_contract
from contracts.model import Contract
from lakehouse.lake import Lake
from lakehouse.segments import Range, Section
from tests import corpus
from tests.lakehouse.rows import NOW, no_gaps, tables, write
from udfs.keys import KeyRing
from udfs.refine import refine

CONTRACTS = Path(__file__).parents[1] / "data" / "contracts"


def _schema(number: int) -> str:
    return corpus.schema(number)


def _section(contract: Contract, encoding: str) -> Section:
    topics = [
        t for t in corpus.topics(encoding) if t in contract.topics or re.fullmatch(contract.topic_pattern or "", t)
    ]
    records = pa.concat_tables([corpus.records(encoding, topic) for topic in topics]).sort_by(
        [(n, "ascending") for n in ("topic", "partition", "offset")]
    )
    refined = refine(records, contract, _schema, KeyRing({}), NOW)
    grouped = records.group_by(["topic", "partition"]).aggregate(
        [("offset", "min"), ("offset", "max"), ("offset", "count")]
    )
    ranges = [
        Range(r["topic"], r["partition"], None, r["offset_min"], r["offset_max"], r["offset_count"])
        for r in grouped.to_pylist()
    ]
    return Section(contract.stream, refined.rows, refined.rejects, refined.others, tuple(ranges))


@pytest.mark.parametrize("encoding", ["json", "json-schema", "avro"])
def test_what_the_killed_connector_sent_again_is_flagged_and_nothing_else(local: Lake, encoding: str) -> None:
    flagged = 0
    for path in sorted((CONTRACTS / encoding).glob("*.odcs.yaml")):
        contract = load_contract(path)
        made = _section(contract, encoding)
        report = tables(local, contract).commit(write(local, made), gaps=no_gaps, now_ms=NOW)
        assert report.counts["read"] == sum(r.records for r in made.ranges)
        flagged += report.counts["resent"]
    assert flagged == 22

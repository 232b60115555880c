"""The yardstick does the same work: its rows and rejects equal those of the product."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from contracts.model import Encoding
from tests.bench.as_avro import VALUE_SCHEMA
from tests.bench.contract import keys, write_contracts
from tests.bench.generate import Load, raw_batch
from tests.bench.yardstick import REJECTS, ROWS, Yardstick, decoder
from udfs.refine import refine

RECORDS = 6_000


@dataclass(frozen=True)
class Sent:
    """A record as confluent-kafka gives it."""

    record: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        found = self.record[name]
        return lambda: (1, found) if name == "timestamp" else found


@pytest.mark.parametrize("encoding", [Encoding.JSON, Encoding.AVRO])
def test_the_yardstick_gives_the_same_rows_and_rejects(tmp_path: Path, encoding: Encoding) -> None:
    what = Load("", ["t"], 4, encoding, (1, 2))
    raw = raw_batch(what, RECORDS)
    registry = "http://127.0.0.1:1" if encoding is Encoding.AVRO else None
    contract = write_contracts(tmp_path, [("customers", "t")], encoding, registry)[0]
    ours = refine(raw, contract, lambda _: VALUE_SCHEMA, keys(), int(time.time() * 1000))
    yardstick = Yardstick("", decoder(encoding))
    yardstick.take([Sent(record) for record in raw.to_pylist()])
    assert ours.rows.select([n for n in ROWS.names if n != "_ingested_at"]).to_pylist() == [
        {n: v for n, v in row.items() if n != "_ingested_at"} for row in pa.table(yardstick.rows, ROWS).to_pylist()
    ]
    own = [n for n in REJECTS.names if n != "_reason"]
    assert ours.rejects.select(own).to_pylist() == pa.table(yardstick.rejects, REJECTS).select(own).to_pylist()
    assert len(ours.rejects)

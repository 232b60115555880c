"""The generator's promises, on which the comparison stands; and that the product agrees on every kind of record."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from contracts.columns import RECORDS
from contracts.load import load_contracts
from contracts.model import Contract, Encoding
from tests.chaos.arena import CONTRACTS
from tests.chaos.changes import Changes, records_of
from tests.chaos.records import CHANGES, CLICKS, COUNTED, PAYMENTS, QUARANTINE, Records, Topic
from tests.chaos.writing import WRITERS, avro_schemas
from udfs.keys import KeyRing
from udfs.refine import refine

COUNT = 5_000
FIRST = 40_000  # where families are in the midst of their lives
NOW_MS = 1_800_000_000_000


def _named(value: Topic | str) -> str:
    return value.stream if isinstance(value, Topic) else value


@pytest.mark.parametrize("topic", [PAYMENTS, CLICKS], ids=_named)
def test_records_do_not_depend_on_how_the_offsets_are_cut(topic: Topic) -> None:
    whole = records_of(3, topic, 1, 0, COUNT)
    parts = [records_of(3, topic, 1, first, 1_000) for first in range(0, COUNT, 1_000)]
    assert whole.messages() == [message for part in parts for message in part.messages()]
    assert whole.truth().equals(
        pa.concat_tables([part.truth() for part in parts]).unify_dictionaries().combine_chunks()
    )


@pytest.mark.parametrize(
    ("topic", "encoding"), [(CLICKS, "json"), *((PAYMENTS, encoding) for encoding in WRITERS)], ids=_named
)
def test_the_product_does_with_each_record_what_the_truth_says(topic: Topic, encoding: str) -> None:
    records = records_of(3, topic, 0, FIRST, COUNT, encoding)
    refined = refine(_as_read(records), contract_of(topic, encoding), avro_schemas().__getitem__, KeyRing({}), NOW_MS)
    truth = records.truth()
    for fate, table in ((CHANGES, refined.rows), (QUARANTINE, refined.rejects), (COUNTED, refined.others)):
        wanted = truth.filter(pc.equal(truth["fate"].cast(pa.string()), fate))
        assert sorted(table["_offset"].to_pylist()) == wanted["off"].to_pylist(), fate
        assert len(wanted), f"the generator makes no record that is {fate}"
    stored = truth.filter(pc.equal(truth["fate"].cast(pa.string()), CHANGES))
    for name, column in (("id", "id"), ("cents", "cents"), ("note", "note"), ("_op", "op")):
        assert refined.rows[name].to_pylist() == stored[column].to_pylist(), name


def test_every_kind_of_record_is_among_a_few_thousand() -> None:
    made = [Changes(3, PAYMENTS, partition, FIRST, COUNT).what for partition in range(PAYMENTS.partitions)]
    assert set(np.concatenate(made).tolist()) == set(range(10))


def contract_of(topic: Topic, encoding: str = "json") -> Contract:
    contract = next(c for c in load_contracts(CONTRACTS) if c.stream == topic.stream)
    return dataclasses.replace(contract, encoding=Encoding(encoding))


def _as_read(records: Records | Changes) -> pa.Table:
    messages, count = records.messages(), records.count
    headers = [dict(message.get("headers", ())) for message in messages]
    columns = {
        "topic": [records.topic.name] * count,
        "partition": [records.partition] * count,
        "offset": records.offset,
        "timestamp": [1_750_000_000_000] * count,
        "key": [message.get("key") for message in messages],
        "value": [message["value"] for message in messages],
        "old_key": [header.get("__debezium.oldkey") for header in headers],
        "new_key": [header.get("__debezium.newkey") for header in headers],
    }
    return pa.table(columns, schema=RECORDS)

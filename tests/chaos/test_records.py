"""The generator's promises, on which the comparison stands; and that the product agrees on every kind of record."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from contracts.columns import RECORDS
from contracts.load import load_contracts
from tests.chaos.arena import CONTRACTS
from tests.chaos.records import CHANGES, CLICKS, COUNTED, PAYMENTS, QUARANTINE, Records, Topic
from udfs.keys import KeyRing
from udfs.refine import refine

COUNT = 5_000


@pytest.mark.parametrize("topic", [PAYMENTS, CLICKS], ids=lambda topic: topic.stream)
def test_records_do_not_depend_on_how_the_offsets_are_cut(topic: Topic) -> None:
    whole = Records(3, topic, 1, 0, COUNT)
    parts = [Records(3, topic, 1, first, 1_000) for first in range(0, COUNT, 1_000)]
    assert whole.messages() == [message for part in parts for message in part.messages()]
    assert whole.truth().equals(
        pa.concat_tables([part.truth() for part in parts]).unify_dictionaries().combine_chunks()
    )


@pytest.mark.parametrize("topic", [PAYMENTS, CLICKS], ids=lambda topic: topic.stream)
def test_the_product_does_with_each_record_what_the_truth_says(topic: Topic) -> None:
    records = Records(3, topic, 0, 0, COUNT)
    contract = next(c for c in load_contracts(CONTRACTS) if c.stream == topic.stream)
    refined = refine(_as_read(records), contract, lambda _: "", KeyRing({}), 1_800_000_000_000)
    truth = records.truth()
    for fate, table in ((CHANGES, refined.rows), (QUARANTINE, refined.rejects), (COUNTED, refined.others)):
        wanted = truth.filter(pc.equal(truth["fate"].cast(pa.string()), fate))
        assert sorted(table["_offset"].to_pylist()) == wanted["off"].to_pylist(), fate
        assert len(wanted), f"the generator makes no record that is {fate}"


def _as_read(records: Records) -> pa.Table:
    messages, count = records.messages(), records.count
    columns = {
        "topic": [records.topic.name] * count,
        "partition": [records.partition] * count,
        "offset": records.offset,
        "timestamp": [1_750_000_000_000] * count,
        "key": [message.get("key") for message in messages],
        "value": [message["value"] for message in messages],
        "old_key": [None] * count,
        "new_key": [None] * count,
    }
    return pa.table(columns, schema=RECORDS)

"""A canary is counted, and is nothing else: no row, no reject, nothing withheld, whatever the contract says."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.model import Encoding, Envelope
from tests import corpus
from tests.udfs import batches
from tests.udfs.rows import KEYS, NOW_MS
from udfs.kinds import CANARY_KEY
from udfs.refine import Refined, refine

CANARY = CANARY_KEY + b'"7d3"}'
COLUMNS = {"id": "bigint", "n": "integer"}


def refined(values: list[bytes | None], keys: list[bytes | None], **settings: Any) -> Refined:
    columns = settings.pop("columns", COLUMNS)
    return refine(batches.raw(values, keys), batches.contract(columns, **settings), corpus.schema, KEYS, NOW_MS)


@pytest.mark.parametrize(
    "settings",
    [
        {"tables": ("quarantine", "changes", "current")},
        {"encoding": Encoding.AVRO},
        {"encoding": Encoding.JSON_SCHEMA},
        {"envelope": Envelope.PLAIN},
        {"columns": {}},
        {"row_filter": "n > 5"},
    ],
    ids=["keyed", "avro", "json-schema", "plain", "no columns", "filter"],
)
def test_a_canary_is_counted_and_nothing_else(settings: dict[str, Any]) -> None:
    found = refined([None, None, None, None], [CANARY, b'{"id":1}', None, CANARY], **settings)
    assert [len(part) for part in (found.rows, found.rejects, found.withheld)] == [0, 0, 0]
    assert found.others["_kind"].to_pylist() == ["canary", "tombstone", "tombstone", "canary"]
    assert found.others["_offset"].to_pylist() == [0, 1, 2, 3]
    assert found.counts()["kind.canary"] == 2


def test_a_row_with_the_key_of_a_canary_is_a_row() -> None:
    found = refined([batches.event({"id": 1, "n": 1}), None], [CANARY, CANARY])
    assert len(found.rows) == 1
    assert found.counts()["kind.canary"] == 1

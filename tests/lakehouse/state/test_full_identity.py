"""Tables without a primary key whose old rows are complete: columns that the contract names tell their rows apart."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from contracts.model import Action, Contract, Encoding, Rule
from lakehouse.lake import Lake
from lakehouse.segments import Range, Section
from tests import corpus
from tests.lakehouse.rows import NOW, no_gaps, tables, write
from tests.lakehouse.state.test_state_laws import held
from tests.udfs import batches
from tests.udfs.batches import event, raw
from udfs.keys import KeyRing
from udfs.refine import refine

COLUMNS = {"id": "bigint", "n": "integer", "body": "text"}
TABLES = ("quarantine", "changes", "history", "current")
CONTRACT = batches.contract(COLUMNS, Encoding.JSON, full_identity=True, tables=TABLES)
Change = tuple[str, Any, Any]


def row(key: int, n: int = 1) -> dict[str, Any]:
    return {"id": key, "n": n, "body": "b"}


def follow(lake: Lake, changes: list[Change], of: Contract = CONTRACT, *, apart: bool = False) -> None:
    """Commit changes (op, before, after), as one batch or one by one."""
    values = [event(after, op, before, lsn=100 + place * 10) for place, (op, before, after) in enumerate(changes)]
    records = raw(values)
    stream = tables(lake, of)
    for first, last in [(n, n + 1) for n in range(len(values))] if apart else [(0, len(values))]:
        made = refine(records.slice(first, last - first), of, corpus.schema, KeyRing({}), NOW)
        ranges = (Range("shop.t", 0, first - 1 if first else None, first, last - 1, last - first),)
        refs = write(lake, Section(of.stream, made.rows, made.rejects, made.others, ranges, made.withheld))
        stream.commit(refs, gaps=no_gaps, now_ms=NOW)


@pytest.mark.parametrize("apart", [False, True])
def test_rows_are_followed_through_updates_of_their_key_and_deletes(local: Lake, apart: bool) -> None:
    changes: list[Change] = [
        ("c", None, row(1)), ("c", None, row(2)), ("u", row(1), row(1, 2)), ("u", row(1, 2), row(3, 2)),
        ("d", row(2), None), ("u", row(3, 2), row(1, 3)),
    ]  # fmt: skip
    follow(local, changes, apart=apart)
    assert held(local, "t", "id, n, _previous_key") == [(1, 3, '{"id":3}')]
    assert held(local, "t_history", "id, n, _is_current", "id <> 2") == [
        (1, 1, False), (1, 2, False), (1, 3, True), (3, 2, False),
    ]  # fmt: skip


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("rule", ["filter", "quarantine"])
def test_the_row_before_is_gone_though_the_one_after_is_withheld(local: Lake, rule: str, apart: bool) -> None:
    small = Rule("small", "maximum", Action.QUARANTINE, "n", {"value": 5})
    changed = {"row_filter": "n < 6"} if rule == "filter" else {"rules": (small,)}
    of = dataclasses.replace(CONTRACT, **changed)
    follow(local, [("c", None, row(1)), ("c", None, row(2)), ("u", row(1), row(7, 9))], of, apart=apart)
    assert held(local, "t", "id, _stale") == [(2, False)]
    assert held(local, "t_history", "id, _is_current") == [(1, False), (2, True)]

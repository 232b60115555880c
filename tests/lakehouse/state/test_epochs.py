"""A database that was restored numbers its log from the beginning: its new life ranks above the old one."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.model import Truncate, Vanished
from lakehouse.lake import Lake
from tests.lakehouse.rows import NOW, tables
from tests.lakehouse.state.source import TOPIC, contract
from tests.lakehouse.state.test_snapshots import change, commit, read
from tests.lakehouse.state.test_state_laws import held

HISTORY = "id, n, _is_current"


@pytest.mark.parametrize("built", [False, True], ids=["kept all along", "built from the changes"])
def test_changes_of_the_new_epoch_follow_all_of_the_old_one(local: Lake, built: bool) -> None:
    of = contract()
    kept = contract() if not built else _changes_only()
    stream = tables(local, kept)
    commit(stream, local, [change(0, 1, 900), change(1, 2, 910), change(2, 2, 920, _op="d", n=None)], NOW)
    stream = tables(local, kept, epochs={TOPIC: 1})
    again = [read(0, 1, 50) | {"n": 2}, change(1, 2, 60, n=3), change(2, 1, 70, _op="u", n=4)]
    commit(stream, local, again, NOW)
    if built:
        tables(local, of, epochs={TOPIC: 1}).prepare()
    assert held(local, "docs", "id, n") == [(1, 4), (2, 3)]
    assert held(local, "docs_history", HISTORY) == [
        (1, 1, False), (1, 2, False), (1, 4, True), (2, 1, False), (2, 3, True),
    ]  # fmt: skip


def test_a_snapshot_of_the_new_epoch_finds_what_the_restored_database_lacks(local: Lake) -> None:
    of = contract(vanished=Vanished.DELETE, vanished_share=0.9)
    commit(tables(local, of), local, [change(n, n, 900 + n) for n in range(3)], NOW)
    stream = tables(local, of, epochs={TOPIC: 1})
    commit(stream, local, [read(0, 0, 50), read(1, 1, 50, word="last")], NOW + 1)
    commit(stream, local, [change(2, 1, 60)], NOW + 2_000, {0: 3})
    commit(stream, local, [change(3, 1, 70)], NOW + 3_000)
    assert held(local, "docs", "id") == [(0,), (1,)]


def test_a_truncate_of_the_old_epoch_empties_nothing_of_the_new_one(local: Lake) -> None:
    of = contract(truncate=Truncate.APPLY)
    truncate: dict[str, Any] = change(1, 0, 910, _op="t") | {"id": None}
    commit(tables(local, of), local, [change(0, 1, 900), truncate], NOW)
    stream = tables(local, of, epochs={TOPIC: 1})
    commit(stream, local, [change(0, 1, 20), change(1, 2, 30)], NOW)
    assert held(local, "docs", "id") == [(1,), (2,)]
    commit(stream, local, [truncate | {"_offset": 2, "_position_major": 25, "_position_minor": 25}], NOW)
    assert held(local, "docs", "id") == [(2,)]


def _changes_only() -> Any:
    import dataclasses

    return dataclasses.replace(contract(), tables=("quarantine", "changes"))

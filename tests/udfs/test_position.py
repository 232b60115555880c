"""Positions: how a database's own place in its log becomes the pair that orders the changes of a key."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import corpus
from tests.udfs import batches
from tests.udfs.batches import change, contract, raw, text
from udfs import position
from udfs.changes import Changes
from udfs.decoded import SOURCE
from udfs.normalise import normalise

MADE = contract({"id": "bigint"})


def place(rows: list[dict[str, Any]]) -> list[tuple[int | None, int | None]]:
    """Give the positions of `source` blocks."""
    block = pa.array(rows, SOURCE)
    found = position.of_source(dict(zip((f.name for f in SOURCE), block.flatten(), strict=True)))
    return list(zip(found.major.to_pylist(), found.minor.to_pylist(), strict=True))


def in_mysql(file: str | None, pos: int | None, row: int | None = 0) -> dict[str, Any]:
    return {"file": file, "pos": pos, "row": row}


# A case: what `source` says, and the position it is.
CASES: list[tuple[str, dict[str, Any], tuple[int | None, int | None]]] = [
    ("a streamed change", {"sequence": '["100","101"]', "lsn": 101}, (100, 101)),
    ("a row of an initial snapshot", {"sequence": '[null,"101"]', "lsn": 101}, (None, 101)),
    ("a row of an incremental snapshot", {"sequence": '["100","101"]', "lsn": None}, (100, 101)),
    ("a row without any", {"sequence": None, "lsn": None}, (None, None)),
    ("an older connector, without sequence", {"sequence": None, "lsn": 7}, (None, 7)),
    ("a sequence that is none", {"sequence": "[100,101]", "lsn": 7}, (None, 7)),
    ("a change of MySQL", in_mysql("mysql-bin.000003", 154, 2), (3, (154 << 20) | 2)),
    ("a row of a MySQL snapshot", in_mysql("binlog.000012", 4, None), (12, 4 << 20)),
    ("a file that is not numbered", in_mysql("binlog", 4), (None, None)),
    ("a file without a byte", in_mysql("binlog.1", None), (None, None)),
    ("a byte beyond all files", in_mysql("binlog.1", 1 << 50), (None, None)),
    ("more rows than an event has", in_mysql("binlog.1", 1, 1 << 40), (1, (1 << 20) | ((1 << 20) - 1))),
]


@pytest.mark.parametrize(("name", "source", "wanted"), CASES, ids=[name for name, _, _ in CASES])
def test_a_source_gives_its_position(name: str, source: dict[str, Any], wanted: tuple[int, int]) -> None:
    assert place([source]) == [wanted], name


def test_both_databases_in_one_batch_keep_their_own_positions() -> None:
    assert place([source for _, source, _ in CASES]) == [wanted for _, _, wanted in CASES]


PLACES = st.tuples(st.integers(1, 10**6), st.integers(4, 2**40), st.integers(0, 2**20 - 1))


@given(st.lists(PLACES, min_size=2, max_size=20))
def test_positions_of_mysql_stand_in_the_order_of_its_log(places: list[tuple[int, int, int]]) -> None:
    found = place([in_mysql(f"mysql-bin.{file:06}", pos, row) for file, pos, row in places])
    assert sorted(range(len(places)), key=lambda i: found[i]) == sorted(range(len(places)), key=lambda i: places[i])


def mysql(after: Any, op: str, file: str, pos: int, snapshot: str = "false", row: int = 0) -> bytes:
    """Give a change event as Debezium MySQL writes it."""
    times = {"ts_ms": 1_700_000_000_000, "ts_us": 1_700_000_000_000_000, "ts_ns": 1_700_000_000_000_000_000}
    own = {"version": "3.7.0.Final", "connector": "mysql", "name": "shop", "snapshot": snapshot, "db": "shop"}
    where = {"server_id": 223344, "gtid": None, "file": file, "pos": pos, "row": row, "thread": 7, "query": None}
    own |= {"sequence": None, "table": "t", **times, **where}
    return text({**change(after, op), "source": own})


def test_mysql_changes_are_read_with_their_places() -> None:
    values = [mysql({"id": 1}, "r", "mysql-bin.000002", 157, "first"), mysql({"id": 1}, "u", "mysql-bin.000002", 300)]
    values += [mysql({"id": 1}, "u", "mysql-bin.000003", 126, row=n) for n in range(300)]
    found = normalise(raw(values), MADE, corpus.schema, 1)
    assert not found.rejects
    pairs = positions(found.changes)
    assert pairs == sorted(pairs) and len(set(pairs)) == len(pairs)
    assert pairs[0] == (2, 157 << 20)
    assert found.changes.table["_snapshot"].to_pylist()[:2] == ["first", None]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["postgresql", "mysql", "bare"]), min_size=1, max_size=6))
def test_a_batch_of_records_read_together_and_apart_has_equal_positions(kinds: list[str]) -> None:
    one = {
        "postgresql": batches.event({"id": 1}, lsn=500),
        "mysql": mysql({"id": 1}, "u", "mysql-bin.000003", 126),
        "bare": text({**change({"id": 1}), "source": {}}),
    }
    values = [one["postgresql"]] * 300 + [one[kind] for kind in kinds]
    wanted = [(500, 501)] * 300 + [
        {"postgresql": (500, 501), "mysql": (3, 126 << 20), "bare": (None, None)}[k] for k in kinds
    ]
    assert positions(normalise(raw(values), MADE, corpus.schema, 1).changes) == wanted


def positions(changes: Changes) -> list[tuple[int | None, int | None]]:
    columns = [changes.table[name].to_pylist() for name in ("_position_major", "_position_minor")]
    return list(zip(*columns, strict=True))

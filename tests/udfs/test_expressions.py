"""Row filter and derived columns: what decides, what does not, and what no expression may reach."""

from __future__ import annotations

import threading
import time
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from tests.udfs.rows import NOW_MS, changes, contract, derived, field
from udfs.changes import META
from udfs.expressions import derive, keep_matching
from udfs.rules import check
from udfs.sandbox import Expression, _connections, evaluate

ID = field("id", "bigint", key_position=1)
NOTE = field("note")


def test_a_contract_without_sql_changes_nothing() -> None:
    of = contract(ID)
    given = changes(of, [{"id": 1}])
    assert keep_matching(given, of)[0] is given
    assert derive(given, of) == (given, None)


def test_rows_for_which_the_filter_is_not_true_are_left_out() -> None:
    of = contract(ID, NOTE, row_filter="note <> 'test'")
    rows = [{"id": 1, "note": "a"}, {"id": 2, "note": "test"}, {"id": 3, "note": None}]
    kept, out = keep_matching(changes(of, rows), of)
    assert kept.row.to_pylist() == [0]
    assert out.to_pylist() == [1, 2]


def test_deletes_and_truncates_pass_the_filter() -> None:
    rows = [{"id": 1, "note": "test", "_op": "d"}, {"id": None, "_op": "t"}, {"id": 3, "note": "test", "_op": "u"}]
    of = contract(ID, NOTE, row_filter="note <> 'test'")
    assert keep_matching(changes(of, rows), of)[0].row.to_pylist() == [0, 1]
    full = contract(ID, NOTE, row_filter="note <> 'test'", full_identity=True)
    assert keep_matching(changes(full, rows), full)[0].row.to_pylist() == [1]


def test_a_value_that_was_not_sent_decides_nothing() -> None:
    of = contract(ID, NOTE, row_filter="note = 'x'", derived=(derived("long", "text", "coalesce(note, 'none')"),))
    rows: list[dict[str, Any]] = [{"id": 1}, {"id": 2}, {"id": 3, "note": "x"}]
    kept, _ = keep_matching(changes(of, rows, unset={"note": [True, False, False]}), of)
    assert kept.row.to_pylist() == [0, 2]
    done, rejects = derive(kept, of)
    assert rejects is None
    assert done.table["long"].to_pylist() == [None, "x"]
    assert done.unset["long"].to_pylist() == [True, False]


def test_derived_columns_stand_after_the_fields_in_their_declared_type() -> None:
    of = contract(
        ID,
        NOTE,
        derived=(
            derived("twice", "numeric(12,2)", "id * 2 -- doubled"),
            derived("words", "text[]", "string_split(note, ' ')"),
            derived("at", "timestamptz", "_event_time"),
            derived("place", "point", "{'x': id, 'y': 0.5}"),
        ),
    )
    rows: list[dict[str, Any]] = [{"id": 1, "note": "a b"}, {"id": 2, "_op": "d"}]
    done, rejects = derive(changes(of, rows), of)
    assert rejects is None
    assert done.table.column_names[:6] == ["id", "note", "twice", "words", "at", "place"]
    assert done.table.column_names[6:] == META.names
    assert [done.table.schema.field(d.name).type for d in of.derived] == [d.type.arrow for d in of.derived]
    assert done.table["twice"].to_pylist() == [Decimal("2.00"), None]
    assert done.table["words"].to_pylist() == [["a", "b"], None]
    assert done.table["place"].to_pylist() == [{"x": 1.0, "y": 0.5}, None]


def test_only_rows_for_which_a_column_cannot_be_derived_are_rejected() -> None:
    of = contract(
        ID, NOTE, derived=(derived("number", "bigint", "CAST(note AS BIGINT)"), derived("small", "smallint", "id // 1"))
    )
    rows = [{"id": i, "note": "x" if i in (3, 700) else None if i == 5 else str(i)} for i in range(1000)]
    done, rejects = derive(changes(of, rows), of)
    assert rejects is not None
    assert rejects.stage == "check"
    assert rejects.row.to_pylist() == [3, 700]
    assert rejects.rules.to_pylist() == [["derive:number"]] * 2
    assert "x" not in rejects.reason[0].as_py().split()
    assert len(done) == 998
    assert done.table["number"][3:6].to_pylist() == [4, None, 6]


def test_rows_for_which_the_filter_cannot_be_evaluated_are_rejected_by_check() -> None:
    of = contract(ID, NOTE, row_filter="CAST(note AS BIGINT) > 1")
    rows = [{"id": 1, "note": "1"}, {"id": 2, "note": "no number"}, {"id": 3, "note": "3"}]
    kept, out = keep_matching(changes(of, rows), of)
    assert out.to_pylist() == [0]
    checked = check(kept, of, NOW_MS)
    assert checked.changes.row.to_pylist() == [2]
    assert checked.rejects is not None
    assert checked.rejects.row.to_pylist() == [1]
    assert checked.rejects.rules.to_pylist() == [["filter:undecided"]]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/hostname')",
        "SELECT * FROM glob('*')",
        "COPY (SELECT 1) TO 'x.csv'",
        "ATTACH 'x.db'",
        "INSTALL httpfs",
        "SET threads = 4",
        "SET enable_external_access = true",
        "SELECT * FROM hidden_python_table",
    ],
)
def test_the_sandbox_reaches_no_file_no_network_and_no_setting(sql: str) -> None:
    hidden_python_table = pa.table({"a": [1]})
    of = contract(ID, derived=(derived("x", "bigint", "id"),))
    derive(changes(of, [{"id": 1}]), of)
    with pytest.raises(duckdb.Error):
        _connections.connection.execute(sql)
    assert len(hidden_python_table) == 1


def test_each_thread_has_its_own_connection() -> None:
    of = contract(ID, NOTE, row_filter="id % 2 = 0", derived=(derived("x", "text", "upper(note)"),))
    given = changes(of, [{"id": i, "note": f"n{i}"} for i in range(2000)])
    wanted = derive(keep_matching(given, of)[0], of)[0].table
    seen: list[bool] = []

    def work() -> None:
        seen.extend(derive(keep_matching(given, of)[0], of)[0].table.equals(wanted) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 20


def test_a_small_batch_costs_little() -> None:
    of = contract(ID, NOTE, derived=(derived("x", "text", "upper(note)"),))
    given = changes(of, [{"id": i, "note": f"n{i}"} for i in range(200)])
    derive(given, of)
    taken = []
    for _ in range(10):
        start = time.perf_counter()
        derive(given, of)
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.005  # 0.5 ms on a quiet core


def test_an_empty_batch_and_one_of_deletes_get_their_derived_columns() -> None:
    of = contract(ID, NOTE, row_filter="id > 1", derived=(derived("x", "text", "upper(note)"),))
    for rows in ([], [{"id": 1, "_op": "d"}], [{"_op": "t"}]):
        kept, _ = keep_matching(changes(of, rows), of)
        done, rejects = derive(kept, of)
        assert rejects is None
        assert done.table["x"].to_pylist() == [None] * len(rows)
        assert done.table.schema.field("x").type == pa.string()


def test_a_fault_of_one_row_is_found_even_where_sql_cannot_try() -> None:
    # DuckDB refuses TRY around functions that may answer differently; halving finds the row.
    sql = "CASE WHEN id = 77 THEN CAST(note AS BIGINT) ELSE id + CAST(random() AS BIGINT) * 0 END"
    table = changes(contract(ID, NOTE), [{"id": i, "note": "private text"} for i in range(200)]).table
    (found,) = evaluate([Expression(sql, pa.int64(), ("id", "note"))], table)
    assert found.failed is not None
    assert [i for i, failed in enumerate(found.failed.to_pylist()) if failed] == [77]
    assert found.values.to_pylist() == [None if i == 77 else i for i in range(200)]

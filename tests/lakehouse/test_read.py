"""The lake is read offline: every table a view of its own name."""

from __future__ import annotations

from lakehouse.lake import Lake
from lakehouse.read import connect, table_status
from tests.lakehouse.rows import NOW, no_gaps, reject, row, section, tables, write


def test_every_table_is_a_view(lake: Lake) -> None:
    assert connect(lake).execute("SELECT 1").fetchall() == [(1,)]
    tables(lake).commit(write(lake, section([row(0), row(1)], [reject(2)])), gaps=no_gaps, now_ms=NOW)
    query = "SELECT max(id), (SELECT any_value(_reason) FROM orders_quarantine) FROM orders_changes"
    assert connect(lake).execute(query).fetchall() == [(1, "not JSON")]


def test_the_status_of_a_table_is_read_from_its_log(lake: Lake) -> None:
    tables(lake).commit(write(lake, section([row(0), row(1)])), gaps=no_gaps, now_ms=NOW)
    changes, quarantine = table_status(lake)
    assert (changes.name, changes.version, changes.rows) == ("orders_changes", 1, 2)
    assert (quarantine.name, quarantine.rows, quarantine.bytes) == ("orders_quarantine", 0, 0)
    assert changes.bytes > 0 and changes.committed_ms > 0

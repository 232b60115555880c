"""How `tidegate status` shows tables."""

from __future__ import annotations

import io
import time

from rich.console import Console
from rich.table import Table

from jobs.table_status import worn
from lakehouse.table_facts import TableFacts

DAY_MS = 86_400_000


def printed(table: Table | None) -> str:
    assert table is not None
    text = io.StringIO()
    Console(file=text, width=200).print(table)
    return " ".join(text.getvalue().split())


def test_each_table_is_one_line_with_its_files_rows_log_and_last_maintenance() -> None:
    now = int(time.time() * 1000)
    one = TableFacts("docs", 1234, 12, 5_000_000, 900, 100, 3, 20, 640, now - 3 * DAY_MS, now - 90_000, "left [x]")
    shown = printed(worn([one]))
    for part in ("1,234", "12", "5.0 MB", "900", "10%", "640 (20)", "3 d ago", "90 s ago", "left [x]"):
        assert part in shown
    unknown = TableFacts("docs", 0, 0, 0, None, 0, 0, 0, 1, None, None, "")
    assert printed(worn([unknown])).count(" - ") >= 3

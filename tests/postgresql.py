"""SQL scripts against a real PostgreSQL, one statement at a time as psql does, and the corpus' own script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg

from tests import corpus

SCRIPTS = (
    "00_schema.sql", "10_dml.sql", "20_types.sql", "30_ddl.sql", "40_truncate.sql", "50_tail.sql",
    "60_special_numeric.sql",
)  # fmt: skip
_TOKEN = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|\$\$.*?\$\$|--[^\n]*|;|.", re.DOTALL)


def statements(script: str) -> Iterator[str]:
    """Give the statements of a script."""
    held: list[str] = []
    for found in _TOKEN.finditer(script):
        if found[0] == ";":
            yield "".join(held).strip()
            held = []
        elif not found[0].startswith("--"):
            held.append(found[0])


def run(connection: psycopg.Connection[Any], script: str) -> None:
    """Run a script on a connection that commits by itself."""
    for statement in filter(None, statements(script)):
        connection.execute(statement.encode())


def run_corpus(connection: psycopg.Connection[Any]) -> None:
    """Make the tables that the corpus was captured from, as they were at its end (the signal tables aside)."""
    for name in SCRIPTS:
        run(connection, corpus.workload(name))
    # Done beside the incremental snapshot, by no script.
    connection.execute("UPDATE orders SET state = 'inc5' WHERE id = 20")

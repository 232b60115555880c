"""The law of the tables of keys, checked: current is what the source's table would be, history its changelog.

The truth (tests/chaos/changes.py, one row a record) is folded by DuckDB; what the tables hold is read twice, by DuckDB
and by deltalake, and compared as bags of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import duckdb
from deltalake import DeltaTable, QueryBuilder

from lakehouse.lake import Lake

# The changes of keys, each once, in the order of the source; "until" is when the next change of the key happened,
# "noted" the last change so far that said the row's note, or took it from the key before.
TOLD = """
CREATE OR REPLACE TABLE told AS
SELECT key, rank, position, ms, op, gone, cents, note, value, before, after,
       max(rank) FILTER (note IS NOT NULL OR before IS NOT NULL) OVER (PARTITION BY key ORDER BY rank) AS noted,
       lead(ms) OVER (PARTITION BY key ORDER BY rank) AS until,
       lead(rank) OVER (PARTITION BY key ORDER BY rank) IS NULL AS newest
FROM truth WHERE fate = 'changes' AND NOT again
"""
# The key changes that took over a note although a change that waits had said another, of the key before or earlier.
HIDDEN = """
CREATE OR REPLACE TABLE hidden AS
WITH RECURSIVE taken AS (
    SELECT link.key, link.rank, link.before, said.rank AS said, waiting.rank > coalesce(said.rank, -1) AS waits
    FROM (FROM told WHERE before IS NOT NULL AND note IS NULL) link
    ASOF LEFT JOIN (FROM told WHERE note IS NOT NULL OR before IS NOT NULL) said
        ON said.key = link.before AND said.rank < link.rank
    ASOF LEFT JOIN (FROM truth WHERE waits) waiting ON waiting.key = link.before AND waiting.rank < link.rank
), found AS (
    SELECT key, rank FROM taken WHERE waits
    UNION
    SELECT taken.key, taken.rank FROM taken JOIN found ON taken.before = found.key AND taken.said = found.rank
)
FROM found
"""
_PREVIOUS = "CAST(_previous_key ->> 'id' AS BIGINT)"
# Table -> (what it must hold, what is asked of it); {table} is the table.
TABLES: Mapping[str, tuple[str, str]] = {
    "{stream}": (
        "SELECT key, cents, value, op, ms, before, "
        "noted < coalesce(waiting, -1) OR coalesce(hides, false) AS stale, false AS pending "
        "FROM told LEFT JOIN (SELECT key, max(rank) AS waiting FROM truth WHERE waits GROUP BY key) USING (key) "
        "LEFT JOIN (SELECT key, rank AS noted, true AS hides FROM hidden) USING (key, noted) WHERE newest AND NOT gone",
        f"SELECT id, cents, note, _op, epoch_ms(_source_time), {_PREVIOUS}, _stale, _pending IS NOT NULL "
        "FROM {table}",
    ),
    "{stream}_history": (
        "SELECT key, cents, value, op, ms, before, until, newest, false AS pending FROM told WHERE NOT gone",
        f"SELECT id, cents, note, _op, epoch_ms(_valid_from), {_PREVIOUS}, epoch_ms(_valid_to), _is_current, "
        "_pending IS NOT NULL FROM {table}",
    ),
    "_tidegate/memory/{stream}": (
        "SELECT key, op, ms, after FROM told WHERE gone",
        "SELECT id, _op, epoch_ms(_time), CAST(_next_key ->> 'id' AS BIGINT) FROM {table}",
    ),
}
SHOWN = 5


def state_faults(connection: duckdb.DuckDBPyConnection, lake: Lake, stream: str) -> Iterator[str]:
    """Give every difference of a stream's tables of keys from the table `truth`, with its first rows."""
    connection.execute(TOLD)
    connection.execute(HIDDEN)
    for template, (wanted, asked) in TABLES.items():
        name = template.format(stream=stream)
        connection.execute(f"CREATE OR REPLACE TABLE wanted AS {wanted}")
        for reader, source in _readers(connection, lake, name):
            connection.execute(f"CREATE OR REPLACE TABLE held AS {asked.format(table=source)}")
            yield from (f"{name} as {reader} reads it: {fault}" for fault in _differences(connection))


def _readers(connection: duckdb.DuckDBPyConnection, lake: Lake, name: str) -> Iterator[tuple[str, str]]:
    uri = lake.table_uri(name)
    yield "DuckDB", "delta_scan('{}')".format(uri.replace("'", "''"))
    table = DeltaTable(uri, storage_options=dict(lake.storage_options))
    rows = QueryBuilder().register("read", table).execute("SELECT * FROM read").read_all()
    connection.register("read", rows)
    yield "deltalake", "read"
    connection.unregister("read")


def _differences(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    sides = (("lacks", "wanted", "held"), ("holds wrongly", "held", "wanted"))
    for words, one, other in sides:
        question = f"FROM {one} EXCEPT ALL FROM {other}"
        total = connection.execute(f"SELECT count(*) FROM ({question})").fetchone()
        if total and total[0]:
            rows = connection.execute(f"FROM ({question}) ORDER BY ALL LIMIT {SHOWN}").fetchall()
            yield f"it {words} {total[0]:,} rows, first {'; '.join(map(str, rows))}"

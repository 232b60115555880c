"""The law of aggregates, checked by DuckDB: each change that <stream>_changes holds counts once in its window, or it
stands in <stream>_late for it; and over current the table is what a query over current says."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb

from contracts.load import load_contract
from lakehouse.kinds import CURRENT
from lakehouse.lake import Lake
from lakehouse.progress import Writer
from lakehouse.state.table import StateTable
from lakehouse.tables import followers_of, tables_of
from tests.chaos.arena import CONTRACTS, PIPELINE

COUNTED = """
SELECT time_bucket(INTERVAL 1 second, _event_time) AS start, _op, count(*) AS number, sum(cents) AS cents
FROM {stream}_changes AS c
WHERE NOT _resent AND _op IN ('c', 'u') AND NOT EXISTS (
    FROM {stream}_late AS l WHERE l._aggregate = 'per_second'
    AND (l._topic, l._partition, l._offset) = (c._topic, c._partition, c._offset))
GROUP BY ALL
"""
STANDING = """
SELECT time_bucket(INTERVAL 1 minute, _event_time) AS start, count(*) AS number, sum(cents) AS cents
FROM {stream} GROUP BY ALL
"""
# Table -> (what it must hold, what is asked of it).
TABLES = {
    "{stream}_per_second": (COUNTED, "SELECT window_start, _op, number, cents FROM {stream}_per_second"),
    "{stream}_standing": (STANDING, "SELECT window_start, number, cents FROM {stream}_standing"),
}


def aggregate_faults(connection: duckdb.DuckDBPyConnection, lake: Lake, stream: str) -> Iterator[str]:
    """Give every difference of a stream's aggregates from what they are made of; connection: with the lake's views."""
    _see_to_followers(lake, stream)
    connection.execute("SET TimeZone = 'UTC'")
    for name, (wanted, asked) in TABLES.items():
        sides = wanted.format(stream=stream), asked.format(stream=stream)
        for words, (one, other) in (("lacks", sides), ("holds wrongly", sides[::-1])):
            rows = connection.execute(f"(FROM ({one})) EXCEPT ALL (FROM ({other})) ORDER BY ALL LIMIT 5").fetchall()
            if rows:
                yield f"{name.format(stream=stream)} {words} {'; '.join(map(str, rows))}"


def _see_to_followers(lake: Lake, stream: str) -> None:
    """Do what the next start would: the job may have been stopped between a commit of current and what follows it."""
    contract = load_contract(CONTRACTS / f"{stream}.odcs.yaml")
    writer = Writer(PIPELINE)
    (current,) = tables_of(lake, contract, [CURRENT], writer, {})
    assert isinstance(current, StateTable)
    for follower in followers_of(lake, contract, writer, {}):
        follower.open()
        follower.see_to(current)

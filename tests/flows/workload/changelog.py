"""The source's own log of its changes: triggers write every row that is changed, as it then is, beside its table.

The log tables are in a schema of their own and unlogged, so that no publication has them. Locks put the changes of one
key, and a truncate among those of its table, in the order in which they were committed: a sequence tells it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from contracts.model import Contract, Field
from contracts.types import parse_type
from jobs.source import Source, SourceTable
from tests.flows.workload.histories import OP, PREVIOUS, Row
from tests.flows.workload.statements import TABLES

SCHEMA, SEQUENCE = "changelog", "_seq"
FUNCTION = (Path(__file__).parent / "changelog.sql").read_text(encoding="utf-8")
GAINS = (Path(__file__).parent / "gains.sql").read_text(encoding="utf-8")
OWN = {SEQUENCE: "bigint", OP: "text", PREVIOUS: "text"}


def log_changes(connection: psycopg.Connection[Any]) -> None:
    """Log all changes of the workload's tables from now on, after the rows that they hold (as read)."""
    connection.execute(FUNCTION.encode())
    for name, table in TABLES.items():
        log = f"{SCHEMA}.{name}"
        own = f"nextval('{SCHEMA}.places') AS {SEQUENCE}, 'r'::text AS {OP}, NULL::text AS {PREVIOUS}"
        connection.execute(f"CREATE UNLOGGED TABLE {log} AS SELECT {own}, * FROM {name}".encode())
        arguments = ", ".join(f"'{word}'" for word in (name, *table.key))
        for events, each in (("INSERT OR UPDATE OR DELETE", "ROW"), ("TRUNCATE", "STATEMENT")):
            told = f"FOR EACH {each} EXECUTE FUNCTION {SCHEMA}.told({arguments})"
            connection.execute(f"CREATE TRIGGER told_{each} AFTER {events} ON {name} {told}".encode())


def gain_columns(connection: psycopg.Connection[Any]) -> None:
    """Add columns to a table and to its log, which rows that are written from now on fill."""
    connection.execute(GAINS.encode())


def logged(url: str, contract: Contract) -> list[Row]:
    """Give a stream's changes in the source's order: the contract's columns as stored, OP and PREVIOUS."""
    beside = tuple(Field(name, name, parse_type(kind)) for name, kind in OWN.items())
    whole = replace(contract, fields=(*contract.fields, *beside))
    names = tuple(field.source for field in whole.fields)
    with Source.open(url) as source:
        batches = list(source.read(whole, [SourceTable(SCHEMA, contract.stream, names, frozenset())]))
    rows: list[Row] = [row for batch in batches for row in batch.to_pylist()]
    return sorted(rows, key=lambda row: row[SEQUENCE])

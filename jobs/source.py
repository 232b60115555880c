"""Read a PostgreSQL table as the pipeline would store it: one snapshot, in batches, however large the table is."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import psycopg
import pyarrow as pa
from psycopg.conninfo import conninfo_to_dict
from pyarrow import csv

from contracts.model import Contract
from jobs.errors import SourceUnreadable
from udfs import postgresql
from udfs.names import adjusted

REFUSED = "_refused"  # column of a batch: the pipeline refuses the row, because a value does not fit its declared type
BLOCK_BYTES = 32 * 1024 * 1024  # one batch; a single row must fit
CHUNK_BYTES = 1 << 20
SESSION = {"TimeZone": "UTC", "DateStyle": "ISO", "extra_float_digits": "1", "client_encoding": "UTF8"}
NOT_IN_TOPICS = re.compile(r"[^A-Za-z0-9._\-]")  # Debezium writes _ for these in a topic's name
_TABLES = """
SELECT n.nspname, c.relname, c.oid::bigint, ARRAY(SELECT inhparent::bigint FROM pg_inherits WHERE inhrelid = c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
_COLUMNS = (
    "SELECT attname, attgenerated <> '' FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped"
)


@dataclass(frozen=True)
class SourceTable:
    """One table of the source, and its columns; `generated` ones reach no change event."""

    schema: str
    name: str
    columns: tuple[str, ...]
    generated: frozenset[str]

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


class Source:
    """One REPEATABLE READ transaction on a PostgreSQL database: all that is read is of one moment."""

    def __init__(self, connection: psycopg.Connection[Any], password: str) -> None:
        self._connection = connection
        self._password = password

    @classmethod
    @contextmanager
    def open(cls, url: str) -> Iterator[Self]:
        """Open a database by its URL for the block; raises SourceUnreadable."""
        password = _password(url)
        with _explained(password, url), psycopg.connect(url, connect_timeout=10) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            for name, value in SESSION.items():
                connection.execute("SELECT set_config(%s, %s, false)", (name, value))
            yield cls(connection, password)

    def tables(self, contract: Contract, named: Sequence[str] = ()) -> list[SourceTable]:
        """Give the tables that a contract's topics capture, or those named (`schema.table`).

        A partition is left out where its parent is there. Raises SourceUnreadable when one cannot be found.
        """
        with _explained(self._password):
            known = self._connection.execute(_TABLES).fetchall()
        wanted = list(named) or [_captured(topic) for topic in contract.topics]
        if not wanted:
            raise SourceUnreadable(f"{contract.stream} reads topics by a pattern: say which tables, with --table")
        found = [self._one_of(known, name, exact=bool(named)) for name in wanted]
        oids = {row[2] for row in found}
        return [self._described(row) for row in found if not oids & set(row[3])]

    def read(self, contract: Contract, tables: Sequence[SourceTable]) -> Iterator[pa.Table]:
        """Give the contract's fields as stored, unmasked, and REFUSED, in batches; raises SourceUnreadable."""
        query = " UNION ALL ".join(_select(contract, table) for table in tables)
        types = {f.name: postgresql.asked(f.type).arrow for f in contract.fields} | {REFUSED: pa.bool_()}
        sql = f"COPY ({query}) TO STDOUT (FORMAT csv, FORCE_QUOTE *)"
        with _explained(self._password), self._connection.cursor() as cursor, cursor.copy(sql.encode()) as copy:
            for batch in _batches(copy, types):
                yield _stored(batch, contract)

    def _one_of(self, known: Sequence[tuple[Any, ...]], name: str, exact: bool) -> tuple[Any, ...]:
        plain = [(row, f"{row[0]}.{row[1]}") for row in known]
        found = [row for row, full in plain if full == name]
        if not found and not exact:
            found = [row for row, full in plain if NOT_IN_TOPICS.sub("_", full) == name]
        if len(found) != 1:
            why = "has no table" if not found else "has several tables whose topic would be"
            raise SourceUnreadable(f"the source {why} {name}: name the stream's tables, with --table SCHEMA.TABLE")
        return found[0]

    def _described(self, row: tuple[Any, ...]) -> SourceTable:
        with _explained(self._password):
            columns = self._connection.execute(_COLUMNS, (row[2],)).fetchall()
        generated = frozenset(name for name, is_generated in columns if is_generated)
        return SourceTable(row[0], row[1], tuple(name for name, _ in columns), generated)


def column_of(contract: Contract, table: SourceTable) -> Mapping[str, str | None]:
    """Give each field's column in a table, by its name in messages or an alias; None where there is none."""
    in_messages = {adjusted(name): name for name in reversed(table.columns)} | {name: name for name in table.columns}
    return {
        f.name: next((in_messages[n] for n in (f.source, *f.aliases) if n in in_messages), None)
        for f in contract.fields
    }


def _captured(topic: str) -> str:
    """Give the table (`schema.table`) that a Debezium topic is of."""
    return ".".join(topic.split(".")[-2:])


def _select(contract: Contract, table: SourceTable) -> str:
    columns = {name: None if c is None else _quoted(c) for name, c in column_of(contract, table).items()}
    selected = [postgresql.selected(f, columns[f.name]) for f in contract.fields]
    refused = postgresql.refused(contract, columns)
    return f"SELECT {', '.join(selected)}, ({refused}) FROM {_quoted(table.schema)}.{_quoted(table.name)}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _batches(copy: psycopg.Copy, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    stream = _Stream(copy)
    if stream.empty:
        return
    # NULL is empty, an empty text is quoted.
    nulls = {"null_values": [""], "strings_can_be_null": True, "quoted_strings_can_be_null": False}
    convert = csv.ConvertOptions(column_types=dict(types), true_values=["t"], false_values=["f"], **nulls)
    whole = csv.ReadOptions(column_names=list(types), block_size=BLOCK_BYTES, use_threads=False)
    try:
        yield from csv.open_csv(
            pa.PythonFile(stream, mode="r"), whole, csv.ParseOptions(newlines_in_values=True), convert
        )
    except pa.ArrowInvalid as error:
        # Arrow's own words would quote the value.
        place = re.search(r"CSV column #(\d+)", str(error))
        what = f"a value of {list(types)[int(place[1])]} is not of the type" if place else "a row is not of the types"
        raise SourceUnreadable(f"{what} that the contract declares, or longer than {BLOCK_BYTES} bytes") from None


def _stored(batch: pa.RecordBatch, contract: Contract) -> pa.Table:
    arrays = [postgresql.stored(batch.column(i), field) for i, field in enumerate(contract.fields)]
    names = [field.name for field in contract.fields]
    return pa.Table.from_arrays([*arrays, batch.column(len(names))], [*names, REFUSED])


class _Stream(io.RawIOBase):
    """The answer of a COPY as a file to read from."""

    def __init__(self, copy: psycopg.Copy) -> None:
        self._rows = iter(copy)
        self._held = b""
        self._fill(1)
        self.empty = not self._held

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Give at most so many bytes; fewer only at the end."""
        self._fill(size if size >= 0 else 1 << 62)
        given, self._held = self._held[:size], self._held[size:]
        return given

    def _fill(self, size: int) -> None:
        parts, count = [self._held], len(self._held)
        for row in self._rows if count < size else ():
            parts.append(bytes(row))
            count += len(row)
            if count >= size:
                break
        self._held = b"".join(parts)


def _password(url: str) -> str:
    try:
        return str(conninfo_to_dict(url).get("password") or "")
    except psycopg.Error:
        return ""


@contextmanager
def _explained(*secrets: str) -> Iterator[None]:
    """Turn what the driver raises into SourceUnreadable, without what must stay secret."""
    try:
        yield
    except psycopg.Error as error:
        said = " ".join(str(error).split())
        if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:
            said = "it is no URL like postgresql://user@host:5432/database"  # the driver's own words quote parts of it
        elif isinstance(error, psycopg.DataError):  # the database's own words quote the value
            said = f"a value is not of the type that the contract declares ({type(error).__name__})"
        for secret in filter(None, secrets):
            said = said.replace(secret, "***")
        raise SourceUnreadable(f"the source cannot be read: {said}") from None

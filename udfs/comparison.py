"""Compare two tables with a key that may be larger than memory: checksums by bucket first, rows where they differ.

Both sides are read in batches, in any order, and a second time where the first reading found a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

BUCKETS = 4096
ROWS_LOOKED_AT = 50_000  # at most about so many rows of each side are held for the second reading
WAITING = "_waiting"  # column of a batch, a list of texts: why the row is left out of the comparison; null: it is not

Read = Callable[[], Iterator[pa.Table]]


@dataclass(frozen=True)
class Difference:
    """One key that is not the same on both sides."""

    key: Mapping[str, Any]
    what: str  # missing, extra, unmarked (the source's row is held back, the table's does not wait), twice, differs
    columns: tuple[str, ...] = ()  # that differ
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)  # the values in these columns
    table: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Waiting:
    """One key that was left out of the comparison."""

    key: Mapping[str, Any]
    why: tuple[str, ...]  # what its rows on either side say, sorted


@dataclass(frozen=True)
class Comparison:
    """What came of it. `complete`: the differences and their numbers are all there are."""

    source_rows: int
    table_rows: int
    waiting_source: int  # rows of the source that the pipeline holds back
    waiting_table: int  # rows of the table that wait for a change
    waiting_keys: int  # on either side
    waiting: Sequence[Waiting]  # the first of them
    columns: Mapping[str, bool]  # column -> its checksums are equal
    differences: Sequence[Difference]
    found: int  # differences, of which some may not be listed
    complete: bool

    @property
    def equal(self) -> bool:
        """Whether counts, keys and every column are equal."""
        return self.source_rows == self.table_rows and not self.found and all(self.columns.values())


def compare(source: Read, table: Read, key: Sequence[str], columns: Sequence[str], first: int) -> Comparison:
    """Compare the columns of two sides by key; both give batches with key, columns and WAITING, in equal types.

    A key that waits in the table is left out of both sides. Lists at most `first` differences, and at most `first` keys
    that wait.
    """
    with duckdb.connect(config={"threads": 2}) as connection:
        return _Comparing(connection, key, columns, first).run(source, table)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class _Comparing:
    def __init__(
        self, connection: duckdb.DuckDBPyConnection, key: Sequence[str], columns: Sequence[str], first: int
    ) -> None:
        self._duck, self._first = connection, first
        self._waits = False  # whether a row that waits was met
        self._key, self._columns = list(key), [name for name in columns if name not in key]
        keys = ", ".join(map(_quoted, key))
        self._keys, self._hash = keys, f"hash({keys})"
        # DuckDB's hash of a null list is that of an empty one.
        self._sums = [f"hash({keys}, {_quoted(name)} IS NULL, {_quoted(name)})" for name in self._columns]

    def run(self, source: Read, table: Read) -> Comparison:
        for name in ("apart", "held", "unmarked"):
            self._duck.execute(f"CREATE TABLE {name} (h UBIGINT)")
        self._summed("table_sums", table, "apart")
        self._summed("source_sums", source, "held")
        buckets = self._unequal()
        looked_at = self._within_reach([bucket for bucket, _ in buckets], sum(n for _, n in buckets))
        found = self._look(source, table, looked_at) if looked_at else 0
        return Comparison(
            self._count("source_sums"), self._count("table_sums"), self._size("held"), self._size("apart"),
            self._size("(FROM held UNION FROM apart EXCEPT FROM unmarked)"), self._waiting(),
            self._equal_columns(), self._listed() if found else [], found, len(looked_at) == len(buckets),
        )  # fmt: skip

    # --- first reading: checksums

    def _summed(self, name: str, read: Read, waiting: str) -> None:
        sums = "".join(f", sum({sql})::HUGEINT AS s{i}" for i, sql in enumerate([self._hash, *self._sums]))
        select = f"SELECT {self._hash} % {BUCKETS} AS bucket, count(*) AS n{sums} FROM batch WHERE {self._counted}"
        made = False
        for batch in self._each(read):
            self._set_apart(batch, waiting)
            begin = f"INSERT INTO {name}" if made else f"CREATE TABLE {name} AS"
            self._duck.execute(f"{begin} {select} GROUP BY 1")
            made = True
        if not made:
            sums = "".join(f", s{i} HUGEINT" for i in range(len(self._sums) + 1))
            self._duck.execute(f"CREATE TABLE {name} (bucket UBIGINT, n BIGINT{sums})")

    def _set_apart(self, batch: pa.Table, waiting: str) -> None:
        """Keep the hashes of a batch's keys that wait, and of all such keys so far the first ones, with why."""
        if batch[WAITING].null_count == len(batch):
            return
        self._duck.execute(f"INSERT INTO {waiting} SELECT {self._hash} FROM batch WHERE {WAITING} IS NOT NULL")
        found = f"SELECT {self._keys}, {WAITING} FROM batch WHERE {WAITING} IS NOT NULL"
        so_far = f"SELECT * FROM waits UNION ALL {found}" if self._waits else found
        first = f"QUALIFY dense_rank() OVER (ORDER BY {self._keys}) <= {self._first}"
        self._duck.execute(f"CREATE OR REPLACE TABLE waits AS SELECT DISTINCT * FROM ({so_far}) {first}")
        self._waits = True

    def _waiting(self) -> list[Waiting]:
        if not self._waits:
            return []
        rows = self._duck.execute(
            f"SELECT {self._keys}, list_sort(list_distinct(flatten(list({WAITING})))) AS {WAITING} FROM waits"
            f" WHERE {self._hash} NOT IN (FROM unmarked) GROUP BY {self._keys} ORDER BY {self._keys}"
        ).to_arrow_table()
        return [Waiting({name: row[name] for name in self._key}, tuple(row[WAITING])) for row in rows.to_pylist()]

    @property
    def _counted(self) -> str:
        return f"{WAITING} IS NULL AND {self._hash} NOT IN (SELECT h FROM apart)"

    def _each(self, read: Read) -> Iterator[pa.Table]:
        for batch in read():
            self._duck.register("batch", batch)
            yield batch
            self._duck.unregister("batch")

    def _totals(self, name: str) -> str:
        sums = "".join(f", sum(s{i}) AS s{i}" for i in range(len(self._sums) + 1))
        return f"(SELECT bucket, sum(n) AS n{sums} FROM {name} GROUP BY bucket)"

    def _unequal(self) -> list[tuple[int, int]]:
        """Give the buckets that differ, with the rows of their larger side."""
        names = ["n", *(f"s{i}" for i in range(len(self._sums) + 1))]
        differ = " OR ".join(f"a.{n} IS DISTINCT FROM b.{n}" for n in names)
        return self._duck.execute(
            "SELECT bucket, greatest(coalesce(a.n, 0), coalesce(b.n, 0))::BIGINT"
            f" FROM {self._totals('source_sums')} a FULL JOIN {self._totals('table_sums')} b USING (bucket)"
            f" WHERE {differ} ORDER BY 1"
        ).fetchall()

    def _equal_columns(self) -> dict[str, bool]:
        sums = ", ".join(f"sum(s{i + 1})" for i in range(len(self._sums))) or "0"
        one, other = (self._one(f"SELECT {sums} FROM {name}") for name in ("source_sums", "table_sums"))
        return {name: a == b for name, a, b in zip(self._columns, one, other, strict=False)}

    def _within_reach(self, buckets: list[int], rows: int) -> list[int]:
        return buckets[: max(1, ROWS_LOOKED_AT * len(buckets) // max(rows, 1))]

    def _count(self, name: str) -> int:
        return int(self._one(f"SELECT coalesce(sum(n), 0) FROM {name}")[0])

    def _size(self, name: str) -> int:
        return int(self._one(f"SELECT count(*) FROM {name}")[0])

    def _one(self, sql: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = self._duck.execute(sql).fetchone()
        return row or ()

    # --- second reading: rows

    def _look(self, source: Read, table: Read, buckets: Sequence[int]) -> int:
        within = f"{self._counted} AND {self._hash} % {BUCKETS} IN ({', '.join(map(str, buckets))})"
        made: set[str] = set()
        for name, read in (("source_rows", source), ("table_rows", table)):
            for _ in self._each(read):
                begin = f"INSERT INTO {name}" if name in made else f"CREATE TABLE {name} AS"
                self._duck.execute(f"{begin} SELECT * FROM batch WHERE {within}")
                made.add(name)
        for name in {"source_rows", "table_rows"} - made:  # a side without any batch
            (other,) = made
            self._duck.execute(f"CREATE TABLE {name} AS SELECT * FROM {other} WHERE false")
        self._duck.execute(f"CREATE TABLE different AS {self._different()}")
        self._duck.execute(f"INSERT INTO unmarked SELECT {self._hash} FROM different WHERE _what = 'unmarked'")
        return self._size("different")

    def _different(self) -> str:
        keys = ", ".join(_quoted(name) for name in self._key)
        flags = "".join(
            f", a.{_quoted(n)} IS DISTINCT FROM b.{_quoted(n)} AS d{i}" for i, n in enumerate(self._columns)
        )
        differ = "".join(f" OR a.{_quoted(n)} IS DISTINCT FROM b.{_quoted(n)}" for n in self._columns)
        one = f"(SELECT *, count(*) OVER (PARTITION BY {keys}) AS _times FROM {{}} QUALIFY row_number() OVER (PARTITION BY {keys}) = 1)"  # noqa: E501
        what = (
            f"CASE WHEN b._times IS NULL THEN 'missing' WHEN a._times IS NULL AND {self._hash} IN (SELECT h FROM held)"
            " THEN 'unmarked' WHEN a._times IS NULL THEN 'extra'"
            " WHEN b._times > 1 OR a._times > 1 THEN 'twice' ELSE 'differs' END"
        )
        columns = "".join(f", a.{_quoted(n)} AS a{i}, b.{_quoted(n)} AS b{i}" for i, n in enumerate(self._columns))
        return (
            f"SELECT {keys}, {what} AS _what{flags}{columns}"
            f" FROM {one.format('source_rows')} a FULL JOIN {one.format('table_rows')} b USING ({keys})"
            f" WHERE a._times IS NULL OR b._times IS NULL OR a._times > 1 OR b._times > 1{differ}"
        )

    def _listed(self) -> list[Difference]:
        rows = self._duck.execute(f"SELECT * FROM different ORDER BY {self._keys} LIMIT {self._first}").to_arrow_table()
        return [self._difference(row) for row in rows.to_pylist()]

    def _difference(self, row: Mapping[str, Any]) -> Difference:
        places = [i for i in range(len(self._columns)) if row["_what"] == "differs" and row[f"d{i}"]]
        names = tuple(self._columns[i] for i in places)
        sides = [{self._columns[i]: row[f"{side}{i}"] for i in places} for side in "ab"]
        return Difference({name: row[name] for name in self._key}, row["_what"], names, *sides)

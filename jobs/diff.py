"""How a stream's table and that of a version beside it differ, by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contracts.columns import COORDINATES, own_schema
from contracts.model import Contract, Derived, Field
from jobs.chosen import load_chosen
from jobs.credentials import lake_options
from jobs.errors import CannotCompare, NoTableYet
from jobs.verify_report import private_columns, short
from jobs.versions import version_of
from lakehouse.added import effective
from lakehouse.lake import Lake
from lakehouse.read import engine, give_secret
from udfs.comparison import WAITING, Comparison, Difference, compare

BATCH_ROWS = 50_000
PLACE = [*(name for name, _ in COORDINATES), "_epoch"]
STATES = ("_op", "_stale", "_pending", "_unset")  # of ours, what says what a row is


@dataclass(frozen=True)
class Diff:
    """What came of one comparison of two tables."""

    contract: Contract
    table: str
    other: str
    key: Sequence[str]
    comparison: Comparison
    left_out: Mapping[str, str]  # columns that were not compared, and why


def diff(stream: str, contracts: Path, lake_uri: str, name: str, *, first: int = 20) -> Diff:
    """Compare current with the version's current by key; changes by their coordinates where there is no current.

    Raises CannotCompare when a table is missing, or a key column has another type.
    """
    (contract,) = load_chosen(contracts, [stream])
    lake = Lake.open(lake_uri, lake_options())
    return diff_tables(effective(lake, contract), version_of(contract, name), lake, first)


def diff_tables(contract: Contract, version: Contract, lake: Lake, first: int) -> Diff:
    """Do as diff says for loaded contracts."""
    current = "current" in contract.tables
    suffix = "" if current else "_changes"
    one, other = _Side(lake, contract.stream + suffix), _Side(lake, version.stream + suffix)
    key = [f.name for f in contract.key] if current else PLACE
    left_out = _left_out(contract, one, other)
    if lacking := [name for name in key if name in left_out]:
        raise CannotCompare(f"{contract.stream}: the key column {lacking[0]} {left_out[lacking[0]]}")
    names = [*own_schema(contract).names, *STATES]
    columns = [n for n in dict.fromkeys([*key, *names]) if n in one.types and n in other.types and n not in left_out]
    found = compare(lambda: one.read(columns), lambda: other.read(columns), key, columns, first)
    return Diff(contract, one.name, other.name, key, found, left_out)


def _left_out(contract: Contract, one: _Side, other: _Side) -> dict[str, str]:
    """Give the columns that cannot be compared, with the reason, as the end of a sentence."""
    found = {}
    masked: list[Field | Derived] = [*contract.kept, *contract.derived]
    random = {c.name for c in masked if c.mask is not None and c.mask.kind == "encrypt"}
    for name in own_schema(contract).names:
        if name not in one.types or name not in other.types:
            found[name] = f"is in {(other if name in other.types else one).name} only"
        elif one.types[name] != other.types[name]:
            found[name] = f"has another type: {one.types[name]} and {other.types[name]}"
        elif name in random:
            found[name] = "is encrypted: equal values differ"
    return found


class _Side:
    """One version of a table."""

    def __init__(self, lake: Lake, name: str) -> None:
        self.name, self._lake, self._uri = name, lake, lake.table_uri(name)
        with lake.explained(f"open table {name}"):
            try:
                table = DeltaTable(self._uri, storage_options=dict(lake.storage_options))
            except TableNotFoundError:
                raise NoTableYet(f"the lake {lake.uri} holds no table {name}") from None
            self._version = table.version()
            self.types = {field.name: str(field.type) for field in table.schema().fields}

    def read(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Give the rows that are not deleted, in batches."""
        names = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
        uri = self._uri.replace("'", "''")
        living = "WHERE NOT coalesce(_deleted, false)" if "_deleted" in self.types else ""
        sql = f"SELECT {names}, NULL::VARCHAR[] AS {WAITING} FROM delta_scan('{uri}', version={self._version}) {living}"
        with engine() as duck:
            if self._lake.remote:
                give_secret(duck, self._lake)
            duck.execute("SET TimeZone = 'UTC'")
            try:
                for batch in duck.execute(sql).to_arrow_reader(BATCH_ROWS):
                    yield pa.Table.from_batches([batch])
            except duckdb.Error as error:
                raise CannotCompare(f"the table {self.name} cannot be read: {error}") from error


MEANINGS = {"missing": "only in {one}", "extra": "only in {other}", "twice": "more than once", "differs": "differs in"}


def show_diff(found: Diff, console: Console) -> None:
    """Print how many rows there are on each side, which columns differ, and the first keys that do."""
    comparison = found.comparison
    rows = f"{found.table} has {comparison.source_rows:,} rows, {found.other} {comparison.table_rows:,}"
    console.print(rows, highlight=False)
    for name, why in found.left_out.items():
        console.print(f"not compared: {name} {why}", highlight=False, markup=False)
    if comparison.equal:
        console.print("[green]equal[/]", highlight=False)
        return
    unequal = ", ".join(name for name, equal in comparison.columns.items() if not equal)
    at_least = "" if comparison.complete else "at least "
    console.print(
        f"[red]different[/]: {at_least}{comparison.found:,} keys; columns whose checksums differ: "
        f"{escape(unequal) or 'none'}",
        highlight=False,
    )
    table = Table(*found.key, "what", found.table, found.other, title_justify="left")
    table.title = f"the first {len(comparison.differences)} of them"
    for difference in comparison.differences:
        table.add_row(*_shown(found, difference))
    if comparison.differences:
        console.print(table)


def _shown(found: Diff, difference: Difference) -> list[str]:
    private = private_columns(found.contract)
    what = MEANINGS[difference.what].format(one=found.table, other=found.other)
    sides = [
        escape("\n".join("(private)" if n in private else short(side[n]) for n in difference.columns))
        for side in (difference.source, difference.table)
    ]
    keys = [escape(short(value)) for value in difference.key.values()]
    return [*keys, escape(f"{what} {', '.join(difference.columns)}".strip()), *sides]


def as_dict(found: Diff) -> dict[str, Any]:
    """Give the same for scripts."""
    comparison = found.comparison
    return {
        "equal": comparison.equal,
        "tables": [found.table, found.other],
        "rows": [comparison.source_rows, comparison.table_rows],
        "columns": dict(comparison.columns),
        "not_compared": dict(found.left_out),
        "different_keys": comparison.found,
        "complete": comparison.complete,
        "differences": [
            {"key": dict(d.key), "what": MEANINGS[d.what].format(one=found.table, other=found.other),
             "columns": list(d.columns)} for d in comparison.differences
        ],
    }  # fmt: skip

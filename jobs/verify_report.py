"""What a verification says, for people and for scripts; no private value stands in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contracts.model import Contract, Derived, Field
from jobs.verify import Verification
from udfs.comparison import Comparison, Difference

LONGEST = 40  # characters of a value
MEANINGS = {
    "missing": "only in the source",
    "extra": "only in the table",
    "unmarked": "the source's row breaks a rule of the contract, the table's is not stale",
    "twice": "more than once",
    "differs": "differs in",
}
REASONS = (
    "stale: a newer change of the row waits in quarantine, or was dropped; pending: the column's value has not arrived "
    "yet; refused: the source's row breaks a rule of the contract"
)


def show_verification(found: Verification, console: Console) -> None:
    """Print what was compared, what waits, and the first differences."""
    comparison, stream = found.comparison, found.contract.stream
    sources = ", ".join(map(str, found.tables))
    summary = Table(
        "", "source", "table", title=f"{sources} and {stream} version {found.version}", title_justify="left"
    )
    summary.add_row("rows compared", str(comparison.source_rows), str(comparison.table_rows))
    summary.add_row("waiting", str(comparison.waiting_source), str(comparison.waiting_table))
    console.print(summary)
    if comparison.waiting_keys:
        console.print(f"{_left_out(comparison)} of the comparison. {REASONS}", highlight=False)
    if comparison.waiting:
        console.print(_waiting(found))
    for name, why in found.left_out.items():
        console.print(f"not compared: {name} {why}", highlight=False, markup=False)
    if comparison.equal:
        left_out = f"; {_left_out(comparison)}" if comparison.waiting_keys else ""
        console.print(f"[green]equal[/]: {stream}, {comparison.source_rows} rows{left_out}", highlight=False)
        return
    unequal = [name for name, equal in comparison.columns.items() if not equal]
    at_least = "" if comparison.complete else "at least "
    console.print(
        f"[red]different[/]: {stream}, {at_least}{comparison.found} keys; columns whose checksums differ: "
        f"{escape(', '.join(unequal)) or 'none'}",
        highlight=False,
    )
    if comparison.differences:
        console.print(_table(found))


def as_dict(found: Verification) -> dict[str, Any]:
    """Give the same for scripts."""
    comparison = found.comparison
    return {
        "stream": found.contract.stream,
        "equal": comparison.equal,
        "sources": [str(table) for table in found.tables],
        "version": found.version,
        "source_rows": comparison.source_rows,
        "table_rows": comparison.table_rows,
        "waiting_source": comparison.waiting_source,
        "waiting_table": comparison.waiting_table,
        "waiting_keys": comparison.waiting_keys,
        "waiting": [{"key": dict(w.key), "why": list(w.why)} for w in comparison.waiting],
        "columns": dict(comparison.columns),
        "not_compared": dict(found.left_out),
        "different_keys": comparison.found,
        "complete": comparison.complete,
        "differences": [
            {"key": dict(d.key), "what": d.what, "columns": list(d.columns)} for d in comparison.differences
        ],
    }


def _left_out(comparison: Comparison) -> str:
    count = comparison.waiting_keys
    return f"{count} {'key waits and was' if count == 1 else 'keys wait and were'} left out"


def _waiting(found: Verification) -> Table:
    waiting = found.comparison.waiting
    table = Table(*(f.name for f in found.contract.key), "waits because", title_justify="left")
    table.title = f"the first {len(waiting)} of the keys that wait"
    for one in waiting:
        table.add_row(*(escape(short(value)) for value in one.key.values()), escape(", ".join(one.why)))
    return table


def _table(found: Verification) -> Table:
    shown = len(found.comparison.differences)
    table = Table(*(f.name for f in found.contract.key), "what", "in the source", "in the table", title_justify="left")
    table.title = f"the first {shown} of the keys that differ"
    for difference in found.comparison.differences:
        key = [escape(short(value)) for value in difference.key.values()]
        what = f"{MEANINGS[difference.what]} {', '.join(difference.columns)}"
        sides = (_values(found.contract, difference, side) for side in (difference.source, difference.table))
        table.add_row(*key, escape(what.strip()), *sides)
    return table


def _values(contract: Contract, difference: Difference, side: Mapping[str, Any]) -> str:
    private = private_columns(contract)
    return escape("\n".join("(private)" if n in private else short(side[n]) for n in difference.columns))


def private_columns(contract: Contract) -> set[str]:
    """Give the columns whose values are not shown; those of a key are shown as masked."""
    columns: list[Field | Derived] = [*contract.fields, *contract.derived]
    return {c.name for c in columns if c.private or c.mask is not None}


def short(value: Any) -> str:
    """Give a value as text of bounded length."""
    text = "null" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."

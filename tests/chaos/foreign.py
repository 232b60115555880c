"""Commits of others between those of the job: what deltalake's own commands do to tables that somebody else fills.

They may change no row that the law speaks of. So rows are added under a key that no source has, and deleted again
(delta-rs writes the file anew in which they stand by then); files are merged, old ones deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from tests.chaos.arena import Arena
from tests.chaos.records import CLICKS, PAYMENTS

STRANGER = -1
KEYED = (PAYMENTS.stream, f"{PAYMENTS.stream}_history", f"_tidegate/memory/{PAYMENTS.stream}")
TABLES = (*KEYED, f"{PAYMENTS.stream}_changes", f"{CLICKS.stream}_changes")
UNDER_LOAD = 12  # commits tried while the job commits: it is faster, as a rule
LEVEL_SECONDS = 300.0
GIVEN = {"id": STRANGER, "_order_major": 1, "_order_minor": 0, "_is_current": True, "cents": 0, "_stale": False}


def foreign_commits(arena: Arena, random: Random) -> str:
    """Commit to the job's tables: against it, and while it has nothing to do; then it must go on where they left."""
    done: Counter[str] = Counter()
    for _ in range(UNDER_LOAD):
        done[_tried(arena, *random.choice(_choices()))] += 1
    arena.flow.pause()
    try:
        arena.level(LEVEL_SECONDS)
        again = _choices()
        random.shuffle(again)
        for table, act in [*again, *((table, "delete") for table in KEYED)]:
            arena.until(
                f"{act} of {table} is committed", lambda t=table, a=act: _tried(arena, t, a)[:4] != "lost", 60.0
            )
            done[act] += 1
    finally:
        arena.flow.resume()
    arena.moving()
    return ", ".join(f"{number} {act}" for act, number in sorted(done.items()))


def _choices() -> list[tuple[str, str]]:
    return [(table, act) for table in TABLES for act in ACTS if table in KEYED or act not in ONLY_KEYED]


def _tried(arena: Arena, table: str, act: str) -> str:
    with suppress(DeltaError, OSError):
        ACTS[act](DeltaTable(arena.lake.table_uri(table), storage_options=dict(arena.lake.storage_options)))
        return act
    return f"lost {act}"


def _append_nothing(table: DeltaTable) -> None:
    write_deltalake(table, _schema(table).empty_table(), mode="append")


def _append(table: DeltaTable) -> None:
    row = [pa.array([GIVEN.get(field.name)], field.type) for field in _schema(table)]
    write_deltalake(table, pa.Table.from_arrays(row, schema=_schema(table)), mode="append")


def _delete(table: DeltaTable) -> None:
    table.delete(f"id = {STRANGER}")


def _compact(table: DeltaTable) -> None:
    table.optimize.compact()


def _vacuum(table: DeltaTable) -> None:
    table.vacuum(dry_run=False)


def _schema(table: DeltaTable) -> pa.Schema:
    return pa.schema(table.schema().to_arrow())


ACTS: Mapping[str, Callable[[DeltaTable], None]] = {
    "append nothing": _append_nothing,
    "append": _append,
    "delete": _delete,
    "compact": _compact,
    "vacuum": _vacuum,
}
ONLY_KEYED = frozenset({"append", "delete"})

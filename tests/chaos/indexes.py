"""Kept key indexes that are missing, old or wrong when a worker takes them up: it must not believe them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random

import obstore
import psutil

from lakehouse.errors import LakehouseError
from lakehouse.merge.index_snapshot import FOLDER
from tests.chaos.arena import Arena
from tests.chaos.foreign import KEYED

KEPT_SECONDS = 180.0
Kept = Mapping[str, str]  # table -> path of its newest snapshot


def index_damaged(arena: Arena, random: Random) -> str:
    """Remove one table's kept index, bring back an old one of the next, spoil that of the third; kill all workers."""
    kept: Kept = arena.until("the index of each table of keys is kept", lambda: _kept(arena), KEPT_SECONDS)
    old = {path: arena.lake.get(path) for path in kept.values()}
    arena.moving()
    acts = random.sample(list(ACTS), len(ACTS))
    for act, (table, path) in zip(acts, kept.items(), strict=True):
        for newer in _snapshots(arena, table):
            ACTS[act](arena, newer, random)
        if act == "old" and (data := old[path]) is not None:
            arena.lake.put(path, data)
    for worker in arena.stack.workers():
        with suppress(psutil.NoSuchProcess):
            worker.kill()
    return "all workers killed; kept indexes: " + ", ".join(
        f"{table} {act}" for act, table in zip(acts, kept, strict=True)
    )


def _kept(arena: Arena) -> Kept | None:
    """Give the newest kept index of each table, once there is one of each."""
    with suppress(LakehouseError):
        found = {table: _snapshots(arena, table) for table in KEYED}
        if all(found.values()):
            return {table: paths[-1] for table, paths in found.items()}
    return None


def _snapshots(arena: Arena, table: str) -> list[str]:
    with arena.lake.explained("list kept indexes"):
        listed = obstore.list_with_delimiter(arena.lake.objects, prefix=f"{FOLDER}/{table}/")["objects"]
    return sorted(entry["path"] for entry in listed)


def _remove(arena: Arena, path: str, _: Random) -> None:
    arena.lake.delete([path])


def _spoil(arena: Arena, path: str, random: Random) -> None:
    """Change one byte, or cut off the end."""
    data = arena.lake.get(path)
    if data is None:
        return
    at = random.randrange(len(data))
    changed = data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
    arena.lake.put(path, random.choice([changed, data[:at]]))


ACTS: Mapping[str, Callable[[Arena, str, Random], None]] = {"missing": _remove, "old": _remove, "wrong": _spoil}

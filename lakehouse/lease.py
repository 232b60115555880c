"""A lease on long work that two processes had better not do at once. It spares waste; the Delta log decides."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import obstore
import orjson
from obstore.exceptions import AlreadyExistsError, BaseError

from lakehouse.errors import LakehouseError
from lakehouse.lake import Lake

RENEW_SECONDS = 10.0
OVER_SECONDS = 60.0  # without a renewal: its holder is gone


@contextmanager
def leased(lake: Lake, path: str) -> Iterator[dict[str, Any] | None]:
    """Hold the lease at a path meanwhile; gives None, or who else holds it (host, pid, seconds since seen)."""
    held = _taken(lake, path)
    if held is not None:
        yield held
        return
    ended = Event()
    renewing = Thread(target=_renew, args=(lake, path, ended), daemon=True, name="lease")
    renewing.start()
    try:
        yield None
    finally:
        ended.set()
        renewing.join()
        lake.delete([path])


def _taken(lake: Lake, path: str) -> dict[str, Any] | None:
    for _ in range(2):
        try:
            with lake.explained(f"write {path}"):
                obstore.put(lake.objects, path, _own(), mode="create")
            return None
        except LakehouseError as error:
            if not isinstance(error.__cause__, AlreadyExistsError | FileExistsError):
                raise
        holder = orjson.loads(lake.get(path) or b"{}")
        seen = time.time() - holder.get("renewed_ms", 0) / 1000
        if seen < OVER_SECONDS and not _ended(holder):
            return {**holder, "seconds": max(0, round(seen))}
        lake.delete([path])
    return {"host": "another", "pid": 0, "seconds": 0}


def _ended(holder: dict[str, Any]) -> bool:
    """Say whether the holder was a process of this machine that is no more."""
    if holder.get("host") != socket.gethostname():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _own() -> bytes:
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "renewed_ms": int(time.time() * 1000)}
    return orjson.dumps(holder)


def _renew(lake: Lake, path: str, ended: Event) -> None:
    while not ended.wait(RENEW_SECONDS):
        try:
            lake.put(path, _own())
        except (LakehouseError, BaseError, OSError):
            continue  # the next one, or the lease ends early

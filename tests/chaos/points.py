"""Arming the chosen points of tests/chaos/inject, and waiting for a worker to come by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.chaos.arena import Arena

PASSING_SECONDS = 60.0


def arm(arena: Arena, point: str, do: str, *, stream: str | None = None, seconds: float = 0.0) -> None:
    """Let the next worker that passes the point be killed, stopped, or held up for some seconds."""
    order = {"do": do, "stream": stream, "seconds": seconds}
    fresh = _armed(arena, point).with_suffix(".new")
    fresh.write_text(json.dumps(order), encoding="utf-8")
    fresh.rename(_armed(arena, point))


def disarm(arena: Arena) -> None:
    """Take back whatever is armed."""
    for armed in (arena.home / "armed").glob("*.json"):
        armed.unlink(missing_ok=True)


def passed(arena: Arena, point: str, since: int) -> dict[str, Any]:
    """Wait for the event that a worker has passed the armed point; `since` is how many events there were before."""

    def event() -> dict[str, Any] | None:
        return next((e for e in arena.events()[since:] if e["point"] == point and "do" in e), None)

    found: dict[str, Any] = arena.until(f"a worker passes the point {point}", event, PASSING_SECONDS, 0.1)
    return found


def _armed(arena: Arena, point: str) -> Path:
    return arena.home / "armed" / f"{point}.json"

"""What a stack remembers in its home folder: which processes it started, on which ports, with which settings."""

from __future__ import annotations

import dataclasses
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.stack.errors import StackError


@dataclass
class Running:
    """One process, recognisable for ever: a number that was given to another process has another start time."""

    pid: int
    started: float  # seconds since the epoch, as the operating system says
    log: str  # path


@dataclass
class Entry:
    """One component of the stack."""

    ports: dict[str, int] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    processes: dict[str, Running] = field(default_factory=dict)


@dataclass
class State:
    """One stack; `mark` is in the environment of all that it starts, and of all that these start."""

    mark: str
    components: dict[str, Entry] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> State:
        """Give the state that was saved, or a fresh one."""
        if not path.exists():
            return cls(mark=secrets.token_hex(8))
        try:
            saved: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            entries = {name: _entry(entry) for name, entry in saved["components"].items()}
            return cls(saved["mark"], entries)
        except (ValueError, KeyError, TypeError) as error:
            raise StackError(f"{path} is damaged: stop the stack's processes by hand and delete the file") from error

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")
        fresh.replace(path)


def _entry(saved: dict[str, Any]) -> Entry:
    processes = {name: Running(**process) for name, process in saved["processes"].items()}
    return Entry(saved["ports"], saved["settings"], processes)

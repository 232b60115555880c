"""The seam between the supervisor and what it supervises: a component is one frozen spec in one small module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"  # every component listens here and nowhere else


@dataclass(frozen=True)
class Place:
    """Where one component of one stack lives."""

    folder: Path  # its configuration, data and logs
    ports: Mapping[str, int]  # name -> free loopback port
    settings: Mapping[str, str]  # over the component's own, such as lines of server.properties

    @property
    def log(self) -> Path:
        """The folder of its logs."""
        return self.folder / "log"


@dataclass(frozen=True)
class Process:
    """One operating system process of a component, run in the foreground."""

    name: str  # unique in a stack: broker, jobmanager, taskmanager, ...
    command: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Component:
    """What the supervisor needs to know of a component."""

    name: str
    ports: tuple[str, ...]
    prepare: Callable[[Place], None]  # writes configuration and formats storage; harmless when done before
    processes: Callable[[Place], tuple[Process, ...]]
    missing: Callable[[Place], str | None]  # None once healthy, else what is still missing, in words
    address: Callable[[Place], str]  # what a user connects to
    start_seconds: float = 120.0  # a start that takes longer has failed
    stop_seconds: float = 15.0  # a stop that takes longer is forced
    stop_with: str = "SIGTERM"
    needs: tuple[str, ...] = ()  # components that are started with it; their addresses are among its settings


def address_setting(component: str) -> str:
    """Give the name of the setting under which a component finds the address of one that it needs."""
    return f"address.{component}"

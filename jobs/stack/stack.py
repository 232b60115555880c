"""A stack: local Kafka, Flink, S3, ... as real processes, started, watched and stopped from a home folder."""

from __future__ import annotations

import fcntl
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import psutil

from jobs.stack import flink, ports, postgres, processes, s3, schema_registry
from jobs.stack.component import Component, Place, Process, address_setting
from jobs.stack.components import COMPONENTS
from jobs.stack.errors import NotRunning, StackError
from jobs.stack.jars import PROJECT
from jobs.stack.state import Entry, Running, State

DEFAULT_HOME = PROJECT / ".tidegate" / "run" / "local"
DEFAULT_COMPONENTS = ("kafka", "flink")
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class ProcessStatus:
    """How one process is."""

    component: str
    process: str
    running: bool
    healthy: bool  # the whole component
    address: str  # of the component
    pid: int | None
    log: str
    missing: str | None  # why it is not healthy


class Stack:
    """Local components in one home folder; several stacks do not see each other.

    `settings` gives, per component, lines over its configuration (an empty value takes a line away). As a context
    manager it starts what does not run yet and stops exactly that at the end, SIGTERM included.
    """

    def __init__(
        self,
        home: Path | str = DEFAULT_HOME,
        components: Sequence[str] = DEFAULT_COMPONENTS,
        settings: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.home = Path(home).absolute()
        self._components = _with_needs(components)
        self._settings = dict(settings or {})
        self._started: list[str] = []
        self._previous: Any = None

    # --- as a whole

    def up(self) -> list[str]:
        """Start what does not run, wait until all is healthy, and give the names of the components started.

        Raises StackError with the last lines of the log when a component does not start. An interrupted or failed
        start leaves nothing behind that it started itself.
        """
        started: list[str] = []
        with _terminated(), self._locked():
            try:
                self._start(started)
            except BaseException:
                self._stop(started)
                raise
        self._started += started
        return started

    def down(self, components: Sequence[str] | None = None) -> list[str]:
        """Stop components (default: all of this home) with their workers; give the names of those that ran."""
        with self._locked():
            return self._stop(list(self._state().components) if components is None else components)

    def status(self) -> list[ProcessStatus]:
        """Give how each process is, for all components that this home has ever started."""
        state, found = self._state(), []
        for name, entry in state.components.items():
            component, place = _component(name), self._place(name, entry)
            alive = {key: processes.find(running) for key, running in entry.processes.items()}
            missing = component.missing(place) if any(alive.values()) else "stopped"
            for key, running in entry.processes.items():
                found.append(
                    ProcessStatus(
                        component=name,
                        process=key,
                        running=alive[key] is not None,
                        healthy=alive[key] is not None and missing is None,
                        address=component.address(place),
                        pid=running.pid if alive[key] else None,
                        log=running.log,
                        missing=missing if alive[key] else "stopped",
                    )
                )
        return found

    def __enter__(self) -> Stack:
        self._previous = _on_terminate()
        try:
            self.up()
        except BaseException:
            _restore(self._previous)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self.down(self._started)
            self._started = []
        finally:
            _restore(self._previous)

    def keep(self) -> None:
        """Leave running what this object started: the end of its `with` block then stops nothing."""
        self._started = []

    # --- one process, for tests that break things

    def kill(self, process: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a process (broker, jobmanager, taskmanager, s3, ...); raises NotRunning."""
        self.process(process).send_signal(number)

    def restart(self, process: str, wait: bool = True, sweep: bool = True) -> None:
        """Start a process again on its old ports, ending it and (with sweep) its left-over workers first."""
        with self._locked():
            state = self._state()
            name = self._owner(state, process)
            self._end(state, name, [process], sweep)
            self._launch(state, name, [process])
        if wait:
            self._await([name])

    def process(self, name: str) -> psutil.Process:
        """Give a running process by its name; raises NotRunning."""
        state = self._state()
        found = processes.find(state.components[self._owner(state, name)].processes[name])
        if found is None:
            raise NotRunning(f"{name} is not running: start it with `tidegate stack up`")
        return found

    def workers(self) -> list[psutil.Process]:
        """Give the Python workers of the TaskManager, also those that have outlived it."""
        return [p for p in processes.marked(self._state().mark, "taskmanager") if _is_worker(p)]

    # --- addresses

    @property
    def kafka_address(self) -> str:
        """Kafka's bootstrap.servers (host:port), without security."""
        return self.address("kafka")

    @property
    def flink_address(self) -> str:
        """The REST interface and dashboard of the Flink cluster (host:port)."""
        return self.address("flink")

    @property
    def flink_environment(self) -> dict[str, str]:
        """What `bin/flink` needs in its environment to use this cluster."""
        return flink.environment(self.place("flink"))

    @property
    def s3_environment(self) -> dict[str, str]:
        """The AWS_* variables with which a lake on the stack's S3 server is opened; they hold its secret."""
        return s3.client_environment(self.place("s3"))

    @property
    def lake(self) -> str:
        """The URI of a lake on the stack's S3 server."""
        return f"s3://{s3.BUCKET}"

    @property
    def registry_url(self) -> str:
        """The schema registry's Confluent API, as a contract names it."""
        return schema_registry.url(self.place("registry"))

    def put_schemas(self, schemas: Mapping[int, str]) -> None:
        """Put Avro schemas (id -> JSON text) into the stack's registry, which must hold none yet."""
        schema_registry.put_schemas(self.place("registry"), schemas)

    @property
    def postgres_url(self) -> str:
        """The stack's database for its owner; the URL holds the password."""
        return postgres.url(self.place("postgres"))

    def address(self, component: str) -> str:
        """Give what a user connects to; raises NotRunning for a component that this home has never started."""
        return _component(component).address(self.place(component))

    def place(self, component: str) -> Place:
        """Give the folder, ports and settings of a component; raises NotRunning as address does."""
        entry = self._state().components.get(component)
        if entry is None:
            raise NotRunning(f"{component} has not been started in {self.home}: run `tidegate stack up {component}`")
        return self._place(component, entry)

    # --- starting

    def _start(self, started: list[str]) -> None:
        state = self._state()
        idle = []
        for component in self._components:
            entry = state.components.setdefault(component.name, Entry())
            dead = [key for key, running in entry.processes.items() if processes.find(running) is None]
            if not entry.processes or len(dead) == len(entry.processes):
                idle.append(component)
            elif dead:  # one of several: the others keep their ports
                self._launch(state, component.name, dead)
        for component in idle:
            self._choose(state, component)
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(lambda c: c.prepare(self._place(c.name, state.components[c.name])), idle))
        for component in idle:
            started.append(component.name)
            self._launch(state, component.name, None)
        self._await([component.name for component in self._components])

    def _choose(self, state: State, component: Component) -> None:
        entry = state.components[component.name]
        self._end(state, component.name, list(entry.processes), sweep=True)
        taken = {port for other in state.components.values() if other is not entry for port in other.ports.values()}
        entry.ports = ports.choose(component.ports, entry.ports, taken)
        entry.settings = {**entry.settings, **self._settings.get(component.name, {})}
        for name in component.needs:  # the order of _with_needs: its ports are chosen
            needed = _component(name).address(self._place(name, state.components[name]))
            entry.settings[address_setting(name)] = needed

    def _launch(self, state: State, name: str, only: Sequence[str] | None) -> None:
        entry = state.components[name]
        place = self._place(name, entry)
        for process in COMPONENTS[name].processes(place):
            if only is None or process.name in only:
                entry.processes[process.name] = self._run(process, state, place)
                state.save(self._file)  # at once: whatever happens next, the process can be found

    def _run(self, process: Process, state: State, place: Place) -> Running:
        return processes.start(process, state.mark, place.log / f"{process.name}.out")

    def _await(self, names: Sequence[str]) -> None:
        begun, waiting = time.monotonic(), list(names)
        while waiting:
            state = self._state()
            for name in list(waiting):
                component, entry = COMPONENTS[name], state.components[name]
                self._check_alive(name, entry)
                missing = component.missing(self._place(name, entry))
                if missing is None:
                    waiting.remove(name)
                elif time.monotonic() - begun > component.start_seconds:
                    raise StackError(_why(name, entry, f"{missing} after {component.start_seconds:.0f} s"))
            time.sleep(POLL_SECONDS if waiting else 0)

    def _check_alive(self, name: str, entry: Entry) -> None:
        for key, running in entry.processes.items():
            if processes.find(running) is None:
                raise StackError(_why(name, entry, f"{key} ended during the start", key))

    # --- stopping

    def _stop(self, names: Sequence[str]) -> list[str]:
        state, stopped = self._state(), []
        for name in reversed([name for name in state.components if name in names]):
            entry = state.components[name]
            if any(processes.find(running) for running in entry.processes.values()):
                stopped.append(name)
            self._end(state, name, list(entry.processes), sweep=True)
        return stopped

    def _end(self, state: State, name: str, keys: Sequence[str], sweep: bool) -> None:
        entry = state.components[name]
        found = [process for key in keys if (process := processes.find(entry.processes[key]))]
        component = COMPONENTS[name]
        processes.stop(found, component.stop_seconds, signal.Signals[component.stop_with])
        if sweep:  # Flink's Python workers outlive a TaskManager that was killed
            left = [p for key in keys for p in processes.marked(state.mark, key)]
            processes.stop(left, 3.0)

    # --- the home folder

    @property
    def _file(self) -> Path:
        return self.home / "state.json"

    def _state(self) -> State:
        return State.read(self._file)

    def _place(self, name: str, entry: Entry) -> Place:
        return Place(self.home / name, entry.ports, entry.settings)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time change this stack."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _owner(self, state: State, process: str) -> str:
        for name, entry in state.components.items():
            if process in entry.processes:
                return name
        known = sorted(key for entry in state.components.values() for key in entry.processes)
        raise NotRunning(f"this stack has never started {process}; it knows {', '.join(known) or 'no process yet'}")


def _component(name: str) -> Component:
    if name not in COMPONENTS:
        raise StackError(f"there is no component {name!r}: choose from {', '.join(COMPONENTS)}")
    return COMPONENTS[name]


def _with_needs(names: Sequence[str]) -> list[Component]:
    """Give components in the order of their start: what one needs comes before it."""
    wanted = [part for name in names for part in (*_component(name).needs, name)]
    return [_component(name) for name in dict.fromkeys(wanted)]


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "python" in Path(process.exe()).name
    return False


def _why(name: str, entry: Entry, what: str, key: str | None = None) -> str:
    logs = [Path(running.log) for process, running in entry.processes.items() if key in (None, process)]
    last = "\n".join(f"last lines of {log}:\n{processes.tail(log)}" for log in logs)
    return f"{name} did not start: {what}. Look for the cause below, mend it, then start again.\n{last}"


@contextmanager
def _terminated() -> Iterator[None]:
    previous = _on_terminate()
    try:
        yield
    finally:
        _restore(previous)


def _on_terminate() -> Any:
    """Let SIGTERM unwind the program, so that what was started is stopped; give what was set before."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, _unwind)


def _restore(previous: Any) -> None:
    if previous is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, previous)


def _unwind(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)

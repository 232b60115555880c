"""The component `flink`: a session cluster (JobManager and one TaskManager) from the pip package.

Its configuration is the project's flink-conf.yaml, placed as config.yaml with the launcher's own lines; its library
folder links the package's jars, the Python bridge and the connectors, so that each is loaded once and by one loader.
"""

from __future__ import annotations

import re
import shutil
import socket
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import httpx

from jobs.stack.component import LOOPBACK, Component, Place, Process
from jobs.stack.errors import StackError
from jobs.stack.files import write
from jobs.stack.flink_java import ROLES, command
from jobs.stack.jars import PROJECT, jars, java

CONFIGURATION = PROJECT / "flink-conf.yaml"


def distribution() -> Path:
    """Give the folder of the Flink distribution inside the pip package."""
    found = find_spec("pyflink")
    if found is None or not found.origin:
        raise StackError("the Python package apache-flink is missing: run `make setup`")
    return Path(found.origin).parent


def own_settings(place: Place) -> dict[str, str]:
    """Give the lines of config.yaml that depend on where this cluster lives."""
    ports, folder = place.ports, place.folder
    return {
        "jobmanager.rpc.address": LOOPBACK,
        "jobmanager.rpc.port": str(ports["rpc"]),
        "jobmanager.bind-host": LOOPBACK,
        "rest.address": LOOPBACK,
        "rest.bind-address": LOOPBACK,
        "rest.port": str(ports["rest"]),
        "rest.bind-port": str(ports["rest"]),
        "taskmanager.host": LOOPBACK,
        "taskmanager.bind-host": LOOPBACK,
        "blob.server.port": str(ports["blob"]),
        "web.upload.dir": str(folder / "uploads"),
        "io.tmp.dirs": str(folder / "tmp"),
        "env.log.dir": str(place.log),
        "env.pid.dir": str(folder / "pid"),
        "execution.checkpointing.dir": (folder / "checkpoints").as_uri(),
        "execution.checkpointing.savepoint-dir": (folder / "savepoints").as_uri(),
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
    }


def configuration(base: str, settings: Mapping[str, str]) -> str:
    """Give config.yaml: the file's text, without the lines that the settings replace, and then the settings."""
    kept = [line for line in base.splitlines() if not _replaced(line, settings)]
    own = [f"{name}: {value}" for name, value in settings.items() if value != ""]
    return "\n".join([*kept, "", "# --- the launcher's lines", *own, ""])


def prepare(place: Place) -> None:
    """Write the configuration folder and link the library folder."""
    for name in ("tmp", "uploads", "pid", "checkpoints", "savepoints"):
        (place.folder / name).mkdir(parents=True, exist_ok=True)
    write_configuration(place, {**own_settings(place), **place.settings})
    _link_libraries(place.folder / "lib")


def write_configuration(place: Place, settings: Mapping[str, str]) -> None:
    """Write conf/ as `flink run` and the cluster need it, the settings laid over the project's."""
    place.log.mkdir(parents=True, exist_ok=True)
    if not CONFIGURATION.exists():
        raise StackError(f"{CONFIGURATION} is missing: it is part of the project, restore it")
    text = configuration(CONFIGURATION.read_text(encoding="utf-8"), settings)
    write(place.folder / "conf" / "config.yaml", text, 0o644)
    for logging in (distribution() / "conf").glob("log*"):
        shutil.copy(logging, place.folder / "conf" / logging.name)


def libraries() -> list[Path]:
    """Give the jars of the package, of the Python bridge and of the connectors."""
    bridge = (distribution() / "opt").glob("flink-python-*.jar")
    return [*(distribution() / "lib").glob("*.jar"), *bridge, *jars("flink").glob("*.jar")]


def environment(place: Place) -> dict[str, str]:
    """Give what `bin/flink` and the cluster's own scripts need in their environment to use this cluster."""
    return {
        "FLINK_HOME": str(distribution()),
        "FLINK_CONF_DIR": str(place.folder / "conf"),
        "FLINK_LIB_DIR": str(place.folder / "lib"),
        "FLINK_OPT_DIR": str(distribution() / "opt"),
        "FLINK_PLUGINS_DIR": str(distribution() / "plugins"),
        "FLINK_LOG_DIR": str(place.log),
        "JAVA_HOME": str(Path(java()).resolve().parents[1]),
    }


def processes(place: Place) -> tuple[Process, ...]:
    """Give JobManager and TaskManager. Their full logs, which the dashboard shows, are <name>.log in the log folder."""
    return tuple(Process(name, _command(place, name), environment(place)) for name in ROLES)


def missing(place: Place) -> str | None:
    """Say what is missing until a job can be submitted."""
    try:
        answer = httpx.get(f"http://{address(place)}/taskmanagers", timeout=2.0, trust_env=False)
        found = answer.json()["taskmanagers"] if answer.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, ValueError, KeyError):
        found = None
    if found is None:
        return "the JobManager does not answer yet"
    # A TaskManager that was killed stays on the list for a while: only one that listens counts.
    if not any(task_manager["slotsNumber"] and _listens(task_manager["path"]) for task_manager in found):
        return "no TaskManager has registered yet"
    return None


def address(place: Place) -> str:
    """Give host:port of the REST interface and dashboard."""
    return f"{LOOPBACK}:{place.ports['rest']}"


def _command(place: Place, name: str) -> tuple[str, ...]:
    port = {"metrics.reporter.prom.port": str(place.ports[name])}
    return command(name, distribution(), place.folder, place.log / f"{name}.log", port)


def _listens(path: str) -> bool:
    """Say whether the actor system in a path like pekko.tcp://flink@127.0.0.1:40001/user/... listens."""
    found = re.search(r"@([^:/]+):(\d+)/", path)
    if not found:
        return False
    try:
        with socket.create_connection((found[1], int(found[2])), timeout=1.0):
            return True
    except OSError:
        return False


def _replaced(line: str, settings: Mapping[str, str]) -> bool:
    found = re.match(r"([\w.-]+)\s*:", line)
    return bool(found and found[1] in settings)


def _link_libraries(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for jar in libraries():
        (folder / jar.name).symlink_to(jar)


FLINK = Component(
    name="flink",
    ports=("rest", "rpc", "blob", *ROLES),  # the last two: Prometheus endpoints
    prepare=prepare,
    processes=processes,
    missing=missing,
    address=address,
)

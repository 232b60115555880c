"""The component `connect`: Kafka Connect (standalone) with Debezium's PostgreSQL connector and an Avro converter.

Connectors are registered by jobs.stack.capture, which also keeps each as a file here: the worker itself forgets them.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import httpx

from jobs.stack.component import LOOPBACK, Component, Place, Process, address_setting
from jobs.stack.files import merged, write, write_properties
from jobs.stack.jars import jars, java
from jobs.stack.kafka import LOGGING

KAFKA = address_setting("kafka")
AVRO = "io.apicurio.registry.utils.converter.AvroConverter"
RUNNING = "RUNNING"


def settings(place: Place) -> dict[str, str]:
    """Give worker.properties."""
    base = {
        "listeners": f"http://{address(place)}",
        "plugin.path": str(place.folder / "plugins"),
        # Looking through every class for plugins takes half a minute.
        "plugin.discovery": "service_load",
        "offset.storage.file.filename": str(place.folder / "offsets"),
        "offset.flush.interval.ms": "1000",
        "key.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "config.providers": "file",
        "config.providers.file.class": "org.apache.kafka.common.config.provider.FileConfigProvider",
        "producer.max.request.size": str(16 * 1024 * 1024),
        "bootstrap.servers": place.settings.get(KAFKA, ""),
    }
    return merged(base, {name: value for name, value in place.settings.items() if name != KAFKA})


def prepare(place: Place) -> None:
    """Write worker.properties and link the plugins, each with a class loader of its own."""
    connectors(place).mkdir(parents=True, exist_ok=True)
    write_properties(place.folder / "worker.properties", settings(place))
    write(place.folder / "log4j2.properties", LOGGING)
    plugins = place.folder / "plugins"
    _link(plugins / "debezium", jars("connect") / "debezium-connector-postgres")
    (plugins / "avro").mkdir(parents=True, exist_ok=True)
    for jar in jars("connect-avro").glob("*.jar"):
        _link(plugins / "avro" / jar.name, jar)
    # The converter's jar lacks the line by which Connect finds it.
    with zipfile.ZipFile(plugins / "avro" / "found.jar", "w") as found:
        found.writestr("META-INF/services/org.apache.kafka.connect.storage.Converter", f"{AVRO}\n")


def processes(place: Place) -> tuple[Process, ...]:
    """Give the worker, with every connector that was registered."""
    known = sorted(map(str, connectors(place).glob("*.json")))
    logging = f"-Dlog4j2.configurationFile={place.folder / 'log4j2.properties'}"
    options = ("-Xmx640m", "-XX:+UseSerialGC", "-Djava.awt.headless=true", logging, "-cp", f"{jars('connect')}/*")
    program = ("org.apache.kafka.connect.cli.ConnectStandalone", str(place.folder / "worker.properties"), *known)
    return (Process("connect", (java(), *options, *program), {}),)


def missing(place: Place) -> str | None:
    """Say what is missing until the worker and every connector run."""
    try:
        for path in sorted(connectors(place).glob("*.json")):
            failing = trouble(place, path.stem)
            if failing is not None:
                return failing
        answer = httpx.get(f"http://{address(place)}/connectors", timeout=5.0, trust_env=False)
    except httpx.HTTPError:
        return "Kafka Connect does not answer yet"
    return None if answer.status_code == httpx.codes.OK else f"Kafka Connect answers {answer.status_code}"


def trouble(place: Place, connector: str) -> str | None:
    """Say why a connector does not run; None while it does. Raises httpx.HTTPError when the worker does not answer."""
    answer = httpx.get(f"http://{address(place)}/connectors/{connector}/status", timeout=5.0, trust_env=False)
    if answer.status_code != httpx.codes.OK:
        return f"the connector {connector} is not there yet"
    said: dict[str, Any] = answer.json()
    parts = [said["connector"], *said["tasks"]]
    if len(parts) > 1 and all(part["state"] == RUNNING for part in parts):
        return None
    traces = [str(part["trace"]) for part in parts if part.get("trace")]
    causes = [line for trace in traces for line in trace.splitlines() if not line.startswith("\tat")]
    return f"the connector {connector} does not run: {causes[-1] if causes else 'it is being started'}"


def address(place: Place) -> str:
    """Give host:port of the REST interface."""
    return f"{LOOPBACK}:{place.ports['rest']}"


def connectors(place: Place) -> Path:
    """Give the folder with one file per registered connector."""
    return place.folder / "connectors"


def keep(place: Place, name: str, config: dict[str, str]) -> None:
    """Keep a connector for the worker's next start."""
    write(connectors(place) / f"{name}.json", json.dumps({"name": name, "config": config}, indent=1))


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)


CONNECT = Component(
    name="connect",
    ports=("rest",),
    prepare=prepare,
    processes=processes,
    missing=missing,
    address=address,
    needs=("kafka",),
)

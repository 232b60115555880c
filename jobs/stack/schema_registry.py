"""The component `registry`: a schema registry (Apicurio, in memory) that speaks the Confluent API."""

from __future__ import annotations

import httpx

from jobs.stack.component import LOOPBACK, Component, Place, Process
from jobs.stack.jars import jars, java

API = "/apis/ccompat/v7"


def prepare(place: Place) -> None:
    """Make the folder; the registry keeps nothing on disk."""
    place.folder.mkdir(parents=True, exist_ok=True)
    jars("registry")


def processes(place: Place) -> tuple[Process, ...]:
    """Give the server."""
    variables = {
        "QUARKUS_HTTP_HOST": LOOPBACK,
        "QUARKUS_HTTP_PORT": str(place.ports["http"]),
        "LOG_LEVEL": "WARN",
        **place.settings,
    }
    jar = next(iter(jars("registry").glob("*-runner.jar")))
    return (Process("registry", (java(), "-Xmx256m", "-XX:+UseSerialGC", "-jar", str(jar)), variables),)


def missing(place: Place) -> str | None:
    """Say what is missing until schemas can be fetched."""
    try:
        answer = httpx.get(f"{url(place)}/subjects", timeout=2.0, trust_env=False)
    except httpx.HTTPError:
        return "the registry does not answer yet"
    return None if answer.status_code == httpx.codes.OK else f"the registry answers {answer.status_code}"


def address(place: Place) -> str:
    """Give host:port of the HTTP interface."""
    return f"{LOOPBACK}:{place.ports['http']}"


def url(place: Place) -> str:
    """Give the URL of the Confluent API, as a contract names it."""
    return f"http://{address(place)}{API}"


REGISTRY = Component(
    name="registry",
    ports=("http",),
    prepare=prepare,
    processes=processes,
    missing=missing,
    address=address,
)

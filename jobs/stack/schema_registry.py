"""The component `registry`: a schema registry (Apicurio, in memory) that speaks the Confluent API."""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Mapping
from typing import Any

import httpx

from jobs.stack.component import LOOPBACK, Component, Place, Process
from jobs.stack.errors import StackError
from jobs.stack.jars import jars, java

API = "/apis/ccompat/v7"
IMPORT = "/apis/registry/v2/admin/import"


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


def put_schemas(place: Place, schemas: Mapping[int, str]) -> None:
    """Put Avro schemas into an empty registry under the ids given, each as the one version of a subject `schema-<id>`.

    The registration API hands out ids of its own; this is the import of an Apicurio export, which keeps them.
    Raises StackError when the registry refuses.
    """
    answer = httpx.post(
        f"http://{address(place)}{IMPORT}",
        content=_export(schemas),
        headers={"Content-Type": "application/zip"},
        timeout=30.0,
        trust_env=False,
    )
    if answer.is_error:
        raise StackError(f"the registry refused the schemas ({answer.status_code}): use a registry without schemas")


def _export(schemas: Mapping[int, str]) -> bytes:
    """Give an export archive (Apicurio 2.6, export version 1.0)."""
    archive = io.BytesIO()
    now = int(time.time() * 1000)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as entries:
        manifest = {"systemVersion": "2.6.13.Final", "systemName": "apicurio-registry", "exportVersion": "1.0"}
        entries.writestr(f"manifest-{now}.Manifest.json", json.dumps({**manifest, "exportedOn": now}))
        for number, text in schemas.items():
            content = hashlib.sha256(text.encode()).hexdigest()
            about = {"contentId": number, "contentHash": content, "canonicalHash": content, "artifactType": "AVRO"}
            entries.writestr(f"content/{content}.Content.json", json.dumps(about))
            entries.writestr(f"content/{content}.Content.data", text)
            path = f"groups/default/artifacts/schema-{number}/versions/1.ArtifactVersion.json"
            entries.writestr(path, json.dumps(_version(number, now)))
    return archive.getvalue()


def _version(number: int, now: int) -> dict[str, Any]:
    return {
        "globalId": number,
        "groupId": None,
        "artifactId": f"schema-{number}",
        "version": "1",
        "versionId": 1,
        "artifactType": "AVRO",
        "state": "ENABLED",
        "createdBy": "",
        "createdOn": now,
        "isLatest": True,
        "contentId": number,
    }


REGISTRY = Component(
    name="registry",
    ports=("http",),
    prepare=prepare,
    processes=processes,
    missing=missing,
    address=address,
)

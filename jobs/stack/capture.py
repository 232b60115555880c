"""Register Debezium on the stack's database: its tables' changes go to topics, in one of the three encodings."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence

import httpx

from jobs.stack import connect, postgres
from jobs.stack.component import LOOPBACK, Place
from jobs.stack.errors import StackError
from jobs.stack.stack import Stack

ENCODINGS = ("json", "json-schema", "avro")
PARTITIONS = 3
START_SECONDS = 60.0
JSON_CONVERTER = "org.apache.kafka.connect.json.JsonConverter"


def capture(
    stack: Stack,
    tables: Sequence[str],
    *,
    encoding: str = "json",
    prefix: str = "cdc",
    partitions: int = PARTITIONS,
    settings: Mapping[str, str] | None = None,
) -> str:
    """Capture tables (`users`, `sales.orders`) to the topics <prefix>.<schema>.<table>; give the connector's name.

    The snapshot comes first; the connector runs when this returns. `settings` go over the connector's own. Asked again
    with the same prefix it changes that connector. Raises StackError with what Kafka Connect says when it refuses.
    """
    if encoding not in ENCODINGS:
        raise StackError(f"there is no encoding {encoding!r}: choose from {', '.join(ENCODINGS)}")
    place, name = stack.place("connect"), re.sub(r"[^a-z0-9_]", "_", prefix.lower())
    config = {
        **_source(stack.place("postgres"), name, prefix, tables),
        **_topics(partitions),
        **_converters(stack, encoding),
        **(settings or {}),
    }
    _put(place, name, config)
    connect.keep(place, name, config)
    _await(place, name)
    return name


def release(stack: Stack, name: str) -> None:
    """Remove a connector; its replication slot stays until the database drops it."""
    place = stack.place("connect")
    _ask(place, "DELETE", f"/connectors/{name}")
    (connect.connectors(place) / f"{name}.json").unlink(missing_ok=True)


def _source(database: Place, name: str, prefix: str, tables: Sequence[str]) -> dict[str, str]:
    qualified = [table if "." in table else f"public.{table}" for table in tables]
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        "database.hostname": LOOPBACK,
        "database.port": str(database.ports["sql"]),
        "database.user": postgres.REPLICATOR,
        # The worker reads the password when it needs it: its REST interface shows only this reference.
        "database.password": f"${{file:{postgres.users_file(database)}:{postgres.REPLICATOR}}}",
        "database.dbname": postgres.DATABASE,
        "plugin.name": "pgoutput",
        "publication.name": postgres.PUBLICATION,
        "publication.autocreate.mode": "disabled",
        "slot.name": f"tidegate_{name}",
        "topic.prefix": prefix,
        # Patterns: a dot must be a dot.
        "table.include.list": ",".join(re.escape(table) for table in qualified),
        "snapshot.mode": "initial",
        "skipped.operations": "none",  # TRUNCATE too
        "tombstones.on.delete": "true",
        "heartbeat.interval.ms": "10000",
        "poll.interval.ms": "100",
        "slot.max.retries": "30",
        "slot.retry.delay.ms": "1000",
    }


def _topics(partitions: int) -> dict[str, str]:
    return {
        "topic.creation.default.replication.factor": "1",
        "topic.creation.default.partitions": str(partitions),
        "topic.creation.default.cleanup.policy": "delete",
    }


def _converters(stack: Stack, encoding: str) -> dict[str, str]:
    if encoding == "avro":
        registry = f"http://{stack.address('registry')}/apis/registry/v2"
        avro = {
            "": connect.AVRO,
            ".apicurio.registry.url": registry,
            ".apicurio.registry.auto-register": "true",
            ".apicurio.registry.auto-register.if-exists": "RETURN_OR_UPDATE",
            ".apicurio.registry.as-confluent": "true",
            ".apicurio.registry.use-id": "contentId",
            ".apicurio.registry.headers.enabled": "false",
        }
        adjusted = {"schema.name.adjustment.mode": "avro", "field.name.adjustment.mode": "avro"}
        return adjusted | _both(avro)
    with_schema = "true" if encoding == "json-schema" else "false"
    # Without the last line a NULL arrives as the column's default.
    return _both({"": JSON_CONVERTER, ".schemas.enable": with_schema, ".replace.null.with.default": "false"})


def _both(converter: Mapping[str, str]) -> dict[str, str]:
    return {f"{side}.converter{name}": value for side in ("key", "value") for name, value in converter.items()}


def _put(place: Place, name: str, config: Mapping[str, str]) -> None:
    _ask(place, "PUT", f"/connectors/{name}/config", dict(config))


def _ask(place: Place, method: str, path: str, content: dict[str, str] | None = None) -> None:
    url = f"http://{connect.address(place)}{path}"
    try:
        answer = httpx.request(method, url, json=content, timeout=60.0, trust_env=False)
    except httpx.HTTPError as error:
        raise StackError(f"Kafka Connect does not answer at {connect.address(place)}: {error}") from error
    if answer.is_error:
        raise StackError(f"Kafka Connect refuses ({answer.status_code}): {answer.text.strip()}")


def _await(place: Place, name: str) -> None:
    until = time.monotonic() + START_SECONDS
    while (why := connect.trouble(place, name)) is not None:
        if time.monotonic() > until:
            raise StackError(f"{why}; its log is {place.log / 'connect.out'}")
        time.sleep(0.2)

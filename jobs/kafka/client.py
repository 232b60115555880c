"""One set of Kafka client properties for everything that talks to Kafka: Flink's connector and kafka-python."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import (
    AuthorizationError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
)

from jobs.errors import KafkaProblem
from jobs.kafka.properties import parse_properties
from jobs.kafka.security import JAAS, MODULES, client_arguments, mechanism

CONNECT_MS = 10_000
_ENVIRONMENT = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET = re.compile(r"password|secret|jaas|token|credential|ssl\.keystore\.key$")
# What the ingest job decides itself, and what only Java programs need: never taken from a properties file.
_OURS = re.compile(
    r"bootstrap\.servers|group\..*|client\.id|auto\.offset\.reset|enable\.auto\.commit|isolation\.level"
    r"|(key|value)\.(de)?serializer|config\.providers.*|sasl\.username|sasl\.password"
)
_PROVIDERS = "org.apache.kafka.common.config.provider"


@dataclass(frozen=True)
class KafkaClient:
    """Where Kafka is and how to log in; shows no property values."""

    bootstrap: str  # host:port[,host:port]
    file: Path | None = None  # of the properties
    _properties: Mapping[str, str] = field(default_factory=dict, repr=False)  # as written, ${env:...} unresolved

    @classmethod
    def from_file(cls, path: Path | str | None, bootstrap: str | None = None) -> KafkaClient:
        """Read a client properties file; `bootstrap` is preferred to the file's bootstrap.servers.

        Secrets stand in the file, or in the environment where the file says ${env:NAME}. Raises KafkaProblem when the
        file cannot be read, names an unset variable, or asks for what is not supported.
        """
        properties = _read(Path(path)) if path else {}
        address = bootstrap or properties.get("bootstrap.servers")
        if not address:
            raise KafkaProblem("no Kafka address: give --kafka HOST:PORT, or bootstrap.servers in the properties file")
        client = cls(address, Path(path).absolute() if path else None, properties)
        client_arguments(client._resolved())  # every fault is found now, not on a worker
        return client

    def flink_options(self) -> dict[str, str]:
        """Give the connector's table options. They hold references to secrets, which the TaskManagers resolve.

        The file must have the same path there, and `${env:NAME}` be in their environment.
        """
        options = {name: self._reference(name) for name in self._properties if not _OURS.fullmatch(name)}
        if "sasl.password" in self._properties and JAAS not in self._properties:
            options[JAAS] = self._composed_login()
        if any("${" in value for value in options.values()):
            options |= _providers()
        return {f"properties.{name}": value for name, value in options.items()}

    def topics(self) -> list[str]:
        """Give the names of all topics; raises KafkaProblem."""
        with self.admin() as admin:
            return sorted(admin.list_topics())

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        """Give an administration client for the block; raises KafkaProblem for whatever goes wrong with Kafka."""
        with self._problems():
            client = KafkaAdminClient(**self.arguments())
            try:
                yield client
            finally:
                client.close()

    @contextmanager
    def consumer(self, **settings: Any) -> Iterator[KafkaConsumer]:
        """Give a read_committed consumer without a group for the block; raises KafkaProblem."""
        ours = {"isolation_level": "read_committed", "enable_auto_commit": False, "allow_auto_create_topics": False}
        with self._problems():
            consumer = KafkaConsumer(**{**self.arguments(), **ours, "auto_offset_reset": "none", **settings})
            try:
                yield consumer
            finally:
                consumer.close(autocommit=False)

    @contextmanager
    def producer(self, **settings: Any) -> Iterator[KafkaProducer]:
        """Give a producer for the block, flushed at its end; raises KafkaProblem."""
        with self._problems():
            producer = KafkaProducer(**{**self.arguments(), **settings})
            try:
                yield producer
                producer.flush()
            finally:
                producer.close(timeout=30)

    def arguments(self) -> dict[str, Any]:
        """Give kafka-python's arguments; they hold secrets."""
        return {
            "bootstrap_servers": self.bootstrap.split(","),
            "client_id": "tidegate",
            "bootstrap_timeout_ms": CONNECT_MS,
            **client_arguments(self._resolved()),
        }

    def _resolved(self) -> dict[str, str]:
        return {name: _ENVIRONMENT.sub(_variable, value) for name, value in self._properties.items()}

    def _reference(self, name: str) -> str:
        """Give a value as it may be seen: a secret only as a reference to where it is."""
        value = self._properties[name]
        if not _SECRET.search(name) or _ENVIRONMENT.search(value):
            return value
        return self._in_file(name)

    def _in_file(self, name: str) -> str:
        path = str(self.file)
        if ":" in path or "}" in path:
            raise KafkaProblem(f"{path}: a Kafka properties file must have no ':' or '}}' in its path")
        return f"${{file:{path}:{name}}}"

    def _composed_login(self) -> str:
        """Give sasl.jaas.config for a file that has sasl.username and sasl.password instead."""
        parts = {part: self._properties[f"sasl.{part}"] for part in ("username", "password")}
        if any(sign in value for value in parts.values() for sign in '"\\'):
            raise KafkaProblem("sasl.username or sasl.password holds a quote or backslash: write sasl.jaas.config")
        shown = {p: v if _ENVIRONMENT.search(v) else self._in_file(f"sasl.{p}") for p, v in parts.items()}
        module = MODULES[mechanism(self._properties)]
        return f'{module} required username="{shown["username"]}" password="{shown["password"]}";'

    @contextmanager
    def _problems(self) -> Iterator[None]:
        try:
            yield
        except (AuthorizationError, SaslAuthenticationFailedError) as error:
            raise KafkaProblem(f"Kafka at {self.bootstrap} refuses the login: check {self.file} ({error})") from None
        except (KafkaTimeoutError, KafkaConnectionError) as error:
            raise KafkaProblem(self._unreachable(error)) from error
        except KafkaError as error:
            raise KafkaProblem(f"Kafka at {self.bootstrap}: {type(error).__name__}: {error}") from error

    def _unreachable(self, error: Exception) -> str:
        """Say why no connection came about: nobody listens, or who listens does not let us in."""
        name = type(error).__name__
        if not any(_listens(address) for address in self.bootstrap.split(",")):
            return f"no Kafka broker answers at {self.bootstrap} ({name}): check the address, and that the broker runs"
        if not self.file:
            return (
                f"a server listens at {self.bootstrap}, but gives no answer that Kafka would without TLS and login "
                f"({name}): if it wants them, give --kafka-config FILE"
            )
        return (
            f"the broker at {self.bootstrap} does not let us in with {self.file} ({name}): "
            "check security.protocol, user, password and certificates"
        )


def _listens(address: str) -> bool:
    host, _, port = address.strip().rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2.0).close()
    except (OSError, ValueError):
        return False
    return True


def _read(path: Path) -> dict[str, str]:
    try:
        return parse_properties(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KafkaProblem(f"the Kafka properties file {path} cannot be read: {error.strerror}") from None


def _variable(found: re.Match[str]) -> str:
    if found[1] not in os.environ:
        raise KafkaProblem(f"the Kafka properties file refers to ${{env:{found[1]}}}, which is not set")
    return os.environ[found[1]]


def _providers() -> dict[str, str]:
    return {
        "config.providers": "file,env",
        "config.providers.file.class": f"{_PROVIDERS}.FileConfigProvider",
        "config.providers.env.class": f"{_PROVIDERS}.EnvVarConfigProvider",
    }

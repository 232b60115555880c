"""Avro schemas from a Confluent-compatible registry, by id, cached for good (an id never changes its meaning)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from contracts.model import Contract
from jobs.metrics import Metrics
from udfs.changes import RegistryUnavailable, UnknownSchema

LONGEST_WAIT_SECONDS = 15.0
USER_VARIABLE, PASSWORD_VARIABLE = "TIDEGATE_REGISTRY_USER", "TIDEGATE_REGISTRY_PASSWORD"


class Registry:
    """One registry. `schema(id)` waits for a registry that is down, for ever: a stalled job loses nothing.

    That it waits is seen by the gauge of jobs.probe_function. Raises UnknownSchema when the registry says the id does
    not exist, RegistryUnavailable when it refuses our credentials.
    """

    def __init__(self, url: str, metrics: Metrics, sleep: Callable[[float], None] = time.sleep) -> None:
        self._url = url.rstrip("/")
        self._metrics = metrics
        self._sleep = sleep
        self._cache: dict[int, str] = {}
        user = os.environ.get(USER_VARIABLE)
        auth = (user, os.environ.get(PASSWORD_VARIABLE, "")) if user else None
        self._client = httpx.Client(auth=auth, timeout=10.0, trust_env=False)

    def schema(self, schema_id: int) -> str:
        """Give the writer schema (JSON text) of an id."""
        if schema_id not in self._cache:
            self._cache[schema_id] = self._fetch(schema_id)
        return self._cache[schema_id]

    def _fetch(self, schema_id: int) -> str:
        wait = 0.5
        while True:
            response = self._get(schema_id)
            if response is not None and response.status_code == httpx.codes.OK:
                body: dict[str, Any] = response.json()
                return str(body["schema"])
            if response is not None and response.status_code == httpx.codes.NOT_FOUND:
                raise UnknownSchema(f"the registry {self._url} knows no schema with id {schema_id}")
            if response is not None and response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                raise RegistryUnavailable(
                    f"the registry {self._url} refuses our credentials: set {USER_VARIABLE} and {PASSWORD_VARIABLE} "
                    "in the environment of the TaskManagers"
                )
            self._metrics.count("registry_retries", 1)
            self._sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)

    def _get(self, schema_id: int) -> httpx.Response | None:
        try:
            return self._client.get(f"{self._url}/schemas/ids/{schema_id}")
        except httpx.TransportError:
            return None


class Registries:
    """The registries of all contracts; one per URL."""

    def __init__(self, contracts: Sequence[Contract], metrics: Metrics) -> None:
        urls = {contract.registry for contract in contracts if contract.registry}
        self._registries = {url: Registry(url, metrics) for url in urls}

    def source(self, contract: Contract) -> Callable[[int], str]:
        """Give the schema source of a contract's registry."""
        if contract.registry is None:
            return _no_registry
        return self._registries[contract.registry].schema


def _no_registry(schema_id: int) -> str:
    raise UnknownSchema(f"schema id {schema_id}: the contract names no registry")

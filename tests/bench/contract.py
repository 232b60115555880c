"""The benchmark's contracts and keys: one file a stream, all of the same shape."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import yaml

from contracts.load import load_contract
from contracts.model import Contract, Encoding
from udfs.keys import KeyRing

TEMPLATE = Path(__file__).with_name("customers.odcs.yaml")
KEY_ID = "bench"


def write_contracts(
    folder: Path,
    streams: Sequence[tuple[str, str]],
    encoding: Encoding,
    registry: str | None = None,
    tables: Sequence[str] = ("quarantine", "changes"),
    aggregates: Sequence[Mapping[str, Any]] = (),
) -> list[Contract]:
    """Write a contract for each (stream, topic), and give them as loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    line = f"  - {{vendor: tidegate, property: registry, value: '{registry}'}}" if registry else ""
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    found = []
    for stream, topic in streams:
        path = folder / f"{stream}.odcs.yaml"
        text = template.substitute(
            stream=stream, topic=topic, encoding=encoding.value, registry=line, tables=", ".join(tables)
        )
        path.write_text(_aggregated(text, aggregates) if aggregates else text, encoding="utf-8")
        found.append(load_contract(path))
    return found


def _aggregated(text: str, aggregates: Sequence[Mapping[str, Any]]) -> str:
    """Give a contract with aggregates, and with a column of 1,000 different values to group by."""
    written = yaml.safe_load(text)
    setting = {"vendor": "tidegate", "property": "aggregates", "value": [dict(one) for one in aggregates]}
    written["customProperties"].append(setting)
    bucket = {"name": "bucket", "logicalType": "integer", "physicalType": "bigint", "transformLogic": "id % 1000"}
    written["schema"][0]["properties"].append(bucket)
    return yaml.safe_dump(written, sort_keys=False)


def secret() -> bytes:
    """Give the benchmark's mask key: always the same one, because nothing it hides is anybody's."""
    return hashlib.sha256(b"the benchmark hides nothing").digest()


def keys() -> KeyRing:
    """Give the benchmark's key ring."""
    return KeyRing({KEY_ID: secret()})


def write_keys(path: Path) -> Path:
    """Write the key file."""
    path.touch(mode=0o600)
    path.write_text(f"{KEY_ID} = {base64.b64encode(secret()).decode()}\n", encoding="utf-8")
    return path

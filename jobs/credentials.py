"""Where secrets come from: files and the environment, read where they are used, never handed on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from udfs.keys import KeyRing

LAKE_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ALLOW_HTTP",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
)
KEYS_VARIABLE = "TIDEGATE_KEYS"


def lake_options(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give the object store's options from the usual AWS_* variables; empty for a local lake."""
    source = os.environ if environment is None else environment
    return {name: source[name] for name in LAKE_VARIABLES if source.get(name)}


def key_ring(path: str | None) -> KeyRing:
    """Read the mask keys: from the file named, else from $TIDEGATE_KEYS (a path), else from TIDEGATE_KEY_<ID>.

    Raises OSError when the file cannot be read, ValueError when a line is not `id = base64`.
    """
    path = path or os.environ.get(KEYS_VARIABLE)
    if path:
        return KeyRing.parse(Path(path).read_text(encoding="utf-8"))
    return KeyRing.from_environment(os.environ)

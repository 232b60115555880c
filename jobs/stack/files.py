"""Configuration files as the components read them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def merged(base: Mapping[str, str], over: Mapping[str, str]) -> dict[str, str]:
    """Give settings with others laid over them; an empty value takes a setting away."""
    return {name: value for name, value in {**base, **over}.items() if value != ""}


def write_properties(path: Path, settings: Mapping[str, str]) -> Path:
    """Write a Java properties file and give its path."""
    escaped = {name: value.replace("\\", "\\\\").replace("\n", "\\n") for name, value in settings.items()}
    return write(path, "".join(f"{name}={value}\n" for name, value in escaped.items()))


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write a file that only its owner may read (it may hold a password), and give its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as content:
        content.write(text)
    return path

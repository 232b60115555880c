"""The Flink SQL statements of the ingest job, one file a statement, filled in with escaped literals only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template

_FOLDER = Path(__file__).parent


def statement(name: str, **values: str | int | Mapping[str, str]) -> str:
    """Give the statement in sql/<name>.sql with each ${value} filled in.

    Text becomes a quoted SQL literal, an integer itself, a mapping a list of table options. Raises KeyError when the
    statement names a value that is not given.
    """
    text = (_FOLDER / f"{name}.sql").read_text(encoding="utf-8")
    return Template(text).substitute({key: _literal(value) for key, value in values.items()}).rstrip().rstrip(";")


def _literal(value: str | int | Mapping[str, str]) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return ",\n  ".join(f"{_literal(key)} = {_literal(option)}" for key, option in sorted(value.items()))

"""Case files: one per rule and per mask, each a list of cases in YAML."""

from __future__ import annotations

import datetime as dt
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa
import pytest
import yaml

from tests.udfs.rows import CASES


def cases(folder: str) -> list[Any]:
    """Give every case of a folder as a pytest parameter (kind, case), named kind and what it shows."""
    found = []
    for path in sorted((CASES / folder).glob("*.yaml")):
        for case in yaml.safe_load(path.read_text(encoding="utf-8")):
            found.append(pytest.param(path.stem, case, id=f"{path.stem}: {case['name']}"))
    return found


def kinds(folder: str) -> set[str]:
    """Give the kinds that have a case file with at least one case."""
    return {str(p.values[0]) for p in cases(folder)}


def typed(value: Any, kind: pa.DataType) -> Any:
    """Give a value of a case as the Python value of an Arrow type."""
    if value is None or isinstance(value, list):
        return value
    if pa.types.is_decimal(kind):
        return Decimal(value).quantize(Decimal(1).scaleb(-kind.scale), context=_WIDE)
    if pa.types.is_date(kind):
        return dt.date.fromisoformat(value)
    if pa.types.is_timestamp(kind):
        return dt.datetime.fromisoformat(value)
    return bytes.fromhex(value) if pa.types.is_binary(kind) else value


_WIDE = Context(prec=80)

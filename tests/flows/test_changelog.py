"""A history is compared with what its source says of its own changes: whatever differs is found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from contracts.load import load_contracts
from jobs.source import Source
from jobs.stack import Stack
from tests.flows.workload import Workload, write_contracts
from tests.flows.workload.changelog import log_changes, logged
from tests.flows.workload.histories import OP, PREVIOUS, differences, versions_of

NAN = float("nan")
History = list[dict[str, Any]]


def changed(op: str, key: int | None = None, n: Any = None, previous: str | None = None) -> dict[str, Any]:
    return {OP: op, "id": key, "n": n, PREVIOUS: previous}


def version(key: int, n: Any, begin: int, end: int | None, previous: str | None = None) -> dict[str, Any]:
    times = {"_valid_from": begin, "_valid_to": end, "_is_current": end is None}
    place = {"_order_major": begin, "_order_minor": 0}
    return {"id": key, "n": n, **times, **place, "_previous_key": previous, "_pending": None}


CHANGES = [
    changed("r", 2, "x"), changed("c", 1, "a"), changed("u", 1, "b"), changed("d", 1), changed("c", 1),
    changed("d", 2), changed("c", 3, "x", '{"id": 2}'), changed("t"), changed("c", 4, NAN),
]  # fmt: skip


def history() -> History:
    """Give the history of the changes, by key and time."""
    return [
        version(1, "a", 10, 20), version(1, "b", 20, 30), version(1, None, 40, 70), version(2, "x", 5, 50),
        version(3, "x", 50, 70, '{"id":2}'), version(4, NAN, 80, None),
    ]  # fmt: skip


def swapped(rows: History) -> None:
    rows[0]["_order_major"], rows[1]["_order_major"] = 20, 10


PLANTED: dict[str, tuple[Callable[[History], Any], str]] = {
    "another value": (lambda rows: rows[0].update(n="z"), r"\(1,\): version 0 says \['z'\], the source said \['a'\]"),
    "a value lost": (lambda rows: rows[5].update(n=None), r"\(4,\): version 0 says \[None\]"),
    "a version lost": (lambda rows: rows.pop(1), r"\(1,\): 2 versions, the source made 3"),
    "one too many": (lambda rows: rows.append(version(4, NAN, 90, None)), r"\(4,\): 2 versions, the source made 1"),
    "a key lost": (lambda rows: rows.pop(3), r"\(2,\): 0 versions, the source made 1"),
    "a key made up": (lambda rows: rows.append(version(9, "x", 1, 2)), r"\(9,\): 1 versions, the source made 0"),
    "order": (swapped, r"\(1,\): version 0 says \['b'\]"),
    "still open": (lambda rows: rows[3].update(_valid_to=None, _is_current=True), r"\(2,\): version 0 ends at None"),
    "not told closed": (lambda rows: rows[3].update(_is_current=True), r"\(2,\): version 0 ends at 50"),
    "closed though it holds": (lambda rows: rows[5].update(_valid_to=90, _is_current=False), r"should end never"),
    "a gap": (lambda rows: rows[0].update(_valid_to=19), r"ends at 19, and the next one begins at 20"),
    "an overlap": (lambda rows: rows[1].update(_valid_to=41), r"ends at 41, and the next one begins at 40"),
    "turned round": (lambda rows: rows[4].update(_valid_to=49), r"ends at 49, before it begins"),
    "no link": (lambda rows: rows[4].update(_previous_key=None), r"names the key before None, the source \[2\]"),
    "another link": (
        lambda rows: rows[0].update(_previous_key='{"id":3}'),
        r'the key before {"id":3}, the source none',
    ),
    "not arrived": (lambda rows: rows[0].update(_pending=["n"]), r"version 0 lacks \['n'\]"),
}


def test_the_history_of_the_changes_is_equal_to_them() -> None:
    assert differences(CHANGES, history(), ["id"], ["n"]) == []
    assert differences(CHANGES, reversed(history()), ["id"], ["n"]) == []


@pytest.mark.parametrize("planted", PLANTED)
def test_a_history_that_differs_is_found(planted: str) -> None:
    plant, said = PLANTED[planted]
    rows = history()
    plant(rows)
    assert re.search(said, "\n".join(differences(CHANGES, rows, ["id"], ["n"])))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Stack(tmp_path_factory.mktemp("changelog"), ["postgres"]) as stack:
        yield stack.postgres_url


@pytest.mark.integration
def test_what_the_source_logs_leads_to_what_it_holds(database: str, tmp_path: Path) -> None:
    workload = Workload(database, 3, truncates=True)
    workload.create()
    with psycopg.connect(database, autocommit=True) as connection:
        log_changes(connection)
    done = workload.run(80)
    assert min(done["truncate"], done["change_key"], done["rolled back"]) > 0
    made = 0
    for contract in load_contracts(write_contracts(tmp_path), {}):
        key, columns = [f.name for f in contract.key], [f.name for f in contract.fields]
        versions = versions_of(logged(database, contract), key, columns)
        open_ones = sorted(own[-1].says for own in versions.values() if own[-1].ends is None)
        with Source.open(database) as source:
            rows = [row for batch in source.read(contract, source.tables(contract)) for row in batch.to_pylist()]
        assert open_ones == sorted(repr([row[name] for name in columns]) for row in rows)
        assert all(one.ends for own in versions.values() for one in own[:-1])
        made += sum(len(own) for own in versions.values()) - len(rows)
    assert made > 200

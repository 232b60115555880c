"""Verify against a real PostgreSQL: what counts as equal, what is listed apart, what is never shown."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from contracts.load import load_contracts
from contracts.model import Contract
from jobs.errors import CannotCompare, SourceUnreadable
from jobs.source import Source
from jobs.stack import Stack
from jobs.verify import Verification, verify, verify_once
from lakehouse.added import claim_columns, effective
from lakehouse.lake import Lake
from tests.flows.command import COMMAND
from tests.flows.streams import setting
from tests.jobs.current_tables import Row, changed, write_current
from udfs.keys import KeyRing
from udfs.masks import masking

pytestmark = pytest.mark.integration

KEYS = KeyRing({"k": b"k" * 32})
PEOPLE = """
CREATE TABLE people (id bigint PRIMARY KEY, email text, name text, age int, city text, tags text[], joined timestamptz)
"""
ROWS: list[Row] = [
    {
        "id": n, "email": f"p{n}@example.com", "name": f"Person {n}", "age": 20 + n, "city": "Basel" if n % 2 else None,
        "tags": [f"t{n}", None], "joined": dt.datetime(2024, 1, n, 12, 30, 0, 123456, dt.UTC),
    }
    for n in range(1, 9)
]  # fmt: skip
COLUMNS: list[dict[str, Any]] = [
    {"name": "id", "logicalType": "integer", "physicalType": "bigint", "primaryKey": True, "required": True},
    {"name": "email", "logicalType": "string", "physicalType": "text"},
    {"name": "name", "logicalType": "string", "physicalType": "text"},
    {"name": "age", "logicalType": "integer", "physicalType": "int"},
    {"name": "city", "logicalType": "string", "physicalType": "text"},
    {"name": "tags", "logicalType": "array", "physicalType": "text[]", "items": {"logicalType": "string"}},
    {"name": "joined", "logicalType": "timestamp", "physicalType": "timestamptz"},
]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Stack(tmp_path_factory.mktemp("verify"), ["postgres"]) as stack:
        yield stack.postgres_url


@dataclass
class Place:
    """A table in the source, a contract for it, and a lake."""

    url: str
    folder: Path

    def contract(self, stream: str = "people", columns: list[dict[str, Any]] = COLUMNS, **settings: Any) -> Contract:
        given = {"encoding": "json", "tables": ["quarantine", "changes", "current"], **settings}
        written = {
            "apiVersion": "v3.2.0", "kind": "DataContract", "id": stream, "version": "1.0.0", "status": "active",
            "customProperties": [setting(name, value) for name, value in given.items()],
            "schema": [{"name": stream, "physicalName": f"cdc.public.{stream}", "properties": columns}],
        }  # fmt: skip
        (self.folder / "contracts").mkdir(exist_ok=True)
        (self.folder / "contracts" / f"{stream}.odcs.yaml").write_text(yaml.safe_dump(written, sort_keys=False))
        return {c.stream: c for c in load_contracts(self.folder / "contracts", {})}[stream]

    def fill(self, rows: list[Row] = ROWS) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS people")
            connection.execute(PEOPLE)
            names = list(ROWS[0])
            values = ", ".join(f"%({name})s" for name in names)
            for row in rows:
                connection.execute(f"INSERT INTO people ({', '.join(names)}) VALUES ({values})".encode(), dict(row))

    def verify(self, contract: Contract, rows: list[Row], **changes: Any) -> Verification:
        write_current(self.folder / "lake", contract, rows)
        return verify_once(contract, Lake.open(str(self.folder / "lake")), self.url, KEYS, **changes)

    def command(self, *arguments: str, source: str | None = None) -> subprocess.CompletedProcess[str]:
        others = {name: value for name, value in os.environ.items() if name != "TIDEGATE_KEYS"}  # a file would win
        environment = {**others, "TIDEGATE_KEY_K": base64.b64encode(b"k" * 32).decode(), "COLUMNS": "200"}
        command = [
            COMMAND, "verify", "--stream", "people", "--source", source or self.url,
            "--lake", str(self.folder / "lake"), "--contracts", str(self.folder / "contracts"), *arguments,
        ]  # fmt: skip
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def place(database: str, tmp_path: Path) -> Place:
    made = Place(database, tmp_path)
    made.fill()
    return made


def with_masks(**masks: dict[str, Any]) -> list[dict[str, Any]]:
    private = {"classification": "private"}
    return [
        {**c, **private, "customProperties": [setting("mask", masks[c["name"]])]} if c["name"] in masks else c
        for c in COLUMNS
    ]


def test_equal_tables_are_equal_and_one_changed_value_is_found(place: Place) -> None:
    contract = place.contract()
    assert place.verify(contract, ROWS).comparison.equal
    found = place.verify(contract, [{**row, "age": 99} if row["id"] == 3 else row for row in ROWS]).comparison
    assert [(d.key, d.what, d.columns) for d in found.differences] == [({"id": 3}, "differs", ("age",))]
    assert {name for name, equal in found.columns.items() if not equal} == {"age"}


def test_lost_and_surplus_rows_are_told_apart(place: Place) -> None:
    found = place.verify(place.contract(), [*ROWS[1:], {**ROWS[0], "id": 77}]).comparison
    assert [(d.key["id"], d.what) for d in found.differences] == [(1, "missing"), (77, "extra")]


def test_masked_columns_and_keys_are_compared_through_their_masks(place: Place) -> None:
    key = {"kind": "tokenise", "keyId": "k"}
    masks = {
        "email": {"kind": "email_hash", "keyId": "k"}, "name": {"kind": "keep_first", "n": 1},
        "age": {"kind": "round_number", "to": 10}, "city": {"kind": "encrypt", "keyId": "k"}, "tags": {"kind": "drop"},
    }  # fmt: skip
    contract = place.contract(columns=with_masks(id=key, **masks))
    rows = [masked(contract, row) for row in ROWS]
    assert "example.com" not in repr([{**row, "email": ""} for row in rows])
    assert place.verify(contract, rows).comparison.equal
    place.fill([{**row, "city": "Bern", "email": "other@example.com"} if row["id"] == 2 else row for row in ROWS])
    found = place.verify(contract, rows).comparison
    assert [(d.key, d.columns) for d in found.differences] == [({"id": rows[1]["id"]}, ("email", "city"))]


def test_columns_that_the_stream_gained_by_itself_are_compared_too(place: Place) -> None:
    with psycopg.connect(place.url, autocommit=True) as connection:
        connection.execute("ALTER TABLE people ADD note text, ADD score numeric(12,4), ADD late text")
        connection.execute("UPDATE people SET note = 'n' || id, score = id + 0.25")
    declared = place.contract(encoding="avro", registry="http://127.0.0.1:1", unknownFields="add")
    lake = Lake.open(str(place.folder / "lake"))
    claim_columns(lake, "people", {"note": "text", "score": "numeric(12,4)", "gone": "text"})
    contract = effective(lake, declared)
    rows = [{**row, "note": f"n{row['id']}", "score": Decimal(row["id"]) + Decimal("0.25")} for row in ROWS]
    write_current(place.folder / "lake", contract, rows)
    claim_columns(lake, "people", {"late": "text"})

    def verified() -> Verification:
        return verify_once(declared, lake, place.url, KEYS)

    assert verified().comparison.equal
    assert {"note", "score"} <= set(verified().comparison.columns)
    assert verified().left_out == {
        "gone": "is not in public.people", "late": "is new: no commit has brought it to the table yet"
    }  # fmt: skip
    write_current(place.folder / "lake", contract, changed(rows, lambda row: row["id"] == 3, note=None, score=None))
    assert [(d.key, d.columns) for d in verified().comparison.differences] == [({"id": 3}, ("note", "score"))]


def test_the_row_filter_and_derived_columns_apply_to_the_source(place: Place) -> None:
    decade = {"name": "decade", "logicalType": "integer", "physicalType": "bigint", "transformLogic": "age // 10"}
    contract = place.contract(columns=[*COLUMNS, decade], rowFilter="age > 23")
    rows = [{**row, "decade": row["age"] // 10} for row in ROWS if row["age"] > 23]
    assert place.verify(contract, rows).comparison.equal
    assert not place.verify(contract, [{**row, "decade": None} for row in rows]).comparison.equal


def test_deleted_rows_of_a_table_with_soft_deletes_do_not_count(place: Place) -> None:
    contract = place.contract(state={"deletes": "soft"})
    gone = {**ROWS[0], "id": 50, "_deleted": True}
    living = [{**row, "_deleted": False} for row in ROWS]
    assert place.verify(contract, [*living, gone]).comparison.equal
    assert not place.verify(contract, [*living, {**gone, "_deleted": False}]).comparison.equal


STALE = {**ROWS[1], "age": 1, "_stale": True}
PENDING = {**ROWS[2], "name": None, "city": None, "_pending": ["name", "city"]}
BOTH = {**ROWS[3], "name": None, "_stale": True, "_pending": ["name"]}


def test_rows_that_wait_are_listed_apart(place: Place) -> None:
    found = place.verify(place.contract(), [ROWS[0], STALE, PENDING, BOTH, *ROWS[4:]]).comparison
    assert (found.equal, found.waiting_table, found.source_rows) == (True, 3, 5)
    assert [(w.key["id"], w.why) for w in found.waiting] == [
        (2, ("stale",)), (3, ("pending:city", "pending:name")), (4, ("pending:name", "stale"))
    ]  # fmt: skip
    assert (found.waiting_keys, found.differences) == (3, [])


def test_keys_that_wait_are_shown_apart_from_the_keys_that_differ(place: Place) -> None:
    write_current(place.folder / "lake", place.contract(), [ROWS[0], STALE, PENDING, BOTH, *ROWS[4:7]])
    shown = place.command("--first", "2")
    assert shown.returncode == 1
    assert "3 keys wait and were left out of the comparison" in shown.stdout
    assert "the first 2 of the keys that wait" in shown.stdout
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.stdout.splitlines()]
    waiting, different = [["2", "stale"], ["3", "pending:city, pending:name"]], ["8", "only in the source", "", ""]
    assert [row for row in rows if row in (*waiting, different)] == [*waiting, different]
    told = json.loads(place.command("--json", "--first", "2").stdout)
    assert (told["waiting_keys"], told["different_keys"]) == (3, 1)
    assert told["waiting"] == [
        {"key": {"id": 2}, "why": ["stale"]}, {"key": {"id": 3}, "why": ["pending:city", "pending:name"]}
    ]  # fmt: skip
    assert [one["key"] for one in told["differences"]] == [{"id": 8}]


def test_tables_that_are_equal_but_for_keys_that_wait_count_as_equal_and_say_so(place: Place) -> None:
    write_current(place.folder / "lake", place.contract(), [ROWS[0], STALE, *ROWS[2:]])
    shown = place.command()
    assert (shown.returncode, "equal: people, 7 rows; 1 key waits and was left out" in shown.stdout) == (0, True)
    told = place.command("--json")
    assert (told.returncode, json.loads(told.stdout)["equal"]) == (0, True)


def test_keys_that_wait_are_shown_as_masked(place: Place) -> None:
    keyed = [{**c, "primaryKey": c["name"] == "email"} for c in with_masks(email={"kind": "hash", "keyId": "k"})]
    contract = place.contract(columns=keyed)
    rows = [masked(contract, row) for row in ROWS]
    write_current(place.folder / "lake", contract, [{**rows[0], "_stale": True}, *rows[1:]])
    told = json.loads(place.command("--json").stdout)
    assert told["waiting"] == [{"key": {"email": rows[0]["email"]}, "why": ["stale"]}]
    text = place.command().stdout
    assert (rows[0]["email"][:40] in text, "example.com" in text) == (True, False)


def test_a_row_that_breaks_a_rule_waits_unless_the_table_says_it_is_current(place: Place) -> None:
    rule = {
        "name": "grown",
        "metric": "invalidValues",
        "mustBe": 0,
        "arguments": {"validValues": [20 + n for n in range(1, 8)]},
    }  # noqa: E501
    columns = [{**c, "quality": [rule]} if c["name"] == "age" else c for c in COLUMNS]
    contract = place.contract(columns=columns)
    without = place.verify(contract, ROWS[:7]).comparison
    assert (without.equal, without.waiting_source) == (True, 1)
    assert [(w.key["id"], w.why) for w in without.waiting] == [(8, ("refused",))]
    assert place.verify(contract, [*ROWS[:7], {**ROWS[7], "age": 21, "_stale": True}]).comparison.equal
    found = place.verify(contract, [*ROWS[:7], {**ROWS[7], "age": 21}]).comparison
    assert [(d.key["id"], d.what) for d in found.differences] == [(8, "unmarked")]


def test_both_readings_see_one_moment_of_the_source(place: Place) -> None:
    contract = place.contract()
    with Source.open(place.url) as source:
        tables = source.tables(contract)
        before = sum(len(batch) for batch in source.read(contract, tables))
        with psycopg.connect(place.url, autocommit=True) as connection:
            connection.execute("DELETE FROM people WHERE id > 2")
        assert sum(len(batch) for batch in source.read(contract, tables)) == before == 8


def test_waiting_ends_as_soon_as_the_table_has_caught_up(place: Place) -> None:
    contract, lake = place.contract(), place.folder / "lake"
    write_current(lake, contract, ROWS[:5])
    seen = threading.Event()

    def catch_up() -> None:
        assert seen.wait(30)
        write_current(lake, contract, ROWS)

    follower = threading.Thread(target=catch_up)
    follower.start()
    found = verify(
        "people", place.folder / "contracts", str(lake), place.url, wait_seconds=60, told=lambda _: seen.set()
    )
    follower.join()
    assert found.comparison.equal


def test_the_exit_code_says_equal_different_or_not_comparable(place: Place) -> None:
    write_current(place.folder / "lake", place.contract(), ROWS)
    assert place.command().returncode == 0
    place.fill(ROWS[1:])
    different = place.command("--json")
    assert (different.returncode, json.loads(different.stdout)["different_keys"]) == (1, 1)
    for arguments, source, said in (
        (["--stream", "nobody"], None, "no contract describes nobody"),
        (["--table", "public.nowhere"], None, "has no table public.nowhere"),
        ([], "postgresql://tidegate:wrong@127.0.0.1:1/shop", "the source cannot be read"),
    ):
        refused = place.command(*arguments, source=source)
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr


def test_neither_the_password_nor_a_private_value_is_shown(place: Place) -> None:
    contract = place.contract(
        columns=with_masks(name={"kind": "constant", "value": "x"}, city={"kind": "encrypt", "keyId": "k"})
    )
    rows = [masked(contract, row) for row in ROWS]
    write_current(place.folder / "lake", contract, rows)
    place.fill([{**row, "city": "Bern", "email": "told@example.com"} for row in ROWS])
    password = place.url.split(":")[2].split("@")[0]
    shown = [place.command(), place.command("--json"), place.command(source=place.url.replace("shop", "nowhere"))]
    shown.append(place.command(source=f"postgresql://tidegate:{password}@@@:x/shop"))
    assert [done.returncode for done in shown] == [1, 1, 2, 2]
    text = "".join(done.stdout + done.stderr for done in shown)
    assert "told@example.com" in text  # it is not private
    assert not [word for word in (password, "Bern", "Basel", "Person") if word in text]


def test_what_has_no_meaning_is_refused_with_the_reason(place: Place) -> None:
    with pytest.raises(CannotCompare, match="has no key"):
        keyless = place.contract("people", [{**c, "primaryKey": False} for c in COLUMNS], tables=["changes"])
        verify_once(keyless, Lake.open(str(place.folder / "lake")), place.url, KEYS)
    with pytest.raises(CannotCompare, match="holds no table people"):
        verify_once(place.contract(), Lake.open(str(place.folder / "lake")), place.url, KEYS)
    other = [{**c, "physicalType": "int"} if c["name"] == "city" else c for c in COLUMNS]
    other = [{**c, "logicalType": "integer"} if c["name"] == "city" else c for c in other]
    with pytest.raises(SourceUnreadable, match="the source cannot be read: a value is not of the type") as refused:
        place.verify(place.contract(columns=other), [{**row, "city": 1} for row in ROWS])
    assert "Basel" not in str(refused.value)


def masked(contract: Contract, row: Row) -> dict[str, Any]:
    """Give a row with each column masked as the contract says."""
    import pyarrow as pa

    made = dict(row)
    for column in contract.fields:
        if column.mask is not None and column.dropped:
            del made[column.name]
        elif column.mask is not None:
            values = pa.array([row[column.name]], column.type.arrow)
            made[column.name] = masking(column.type, column.mask, KEYS)(values)[0].as_py()
    return made

"""The law of the tables of keys: the product keeps it in any interleaving, and each way of breaking it is found."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from deltalake import DeltaTable

from lakehouse.commit import StreamTables
from lakehouse.lake import Lake
from lakehouse.segments import Range, Section, SectionRef, write_segment
from lakehouse.standing import standings
from tests.chaos import changes
from tests.chaos.changes import Changes
from tests.chaos.records import PAYMENTS
from tests.chaos.test_records import NOW_MS, _as_read, contract_of
from tests.chaos.verify import verify
from tests.chaos.writing import WRITERS, avro_schemas
from tests.reading import reader
from udfs.keys import KeyRing
from udfs.refine import refine

SEED, COUNT = 5, 6_000  # records a partition
PARTS = 5  # of a partition


@pytest.fixture(autouse=True, scope="module")
def few_families() -> Iterator[None]:
    """Let families live several times within COUNT records."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changes, "FAMILIES", 53)
        yield


@pytest.fixture(scope="module")
def right(few_families: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake in which everything is right."""
    place = tmp_path_factory.mktemp("right") / "lake"
    filled(Lake.open(str(place)))
    return place


def sections(lake: Lake, encoding: str) -> dict[int, list[SectionRef]]:
    contract, parts = contract_of(PAYMENTS, encoding), COUNT // PARTS
    found: dict[int, list[SectionRef]] = {}
    for partition in range(PAYMENTS.partitions):
        for first in range(0, COUNT, parts):
            records = Changes(SEED, PAYMENTS, partition, first, parts, encoding)
            refined = refine(_as_read(records), contract, avro_schemas().__getitem__, KeyRing({}), NOW_MS)
            covered = (
                Range(PAYMENTS.name, partition, first - 1 if first else None, first, first + parts - 1, parts, NOW_MS),
            )
            tables = (refined.rows, refined.rejects, refined.others, covered, refined.withheld)
            found.setdefault(partition, []).extend(
                write_segment(lake, f"{partition}-{first}", [Section(PAYMENTS.stream, *tables)])
            )
    return found


def filled(lake: Lake, encoding: str = "json") -> None:
    """Commit everything, partitions interleaved at random, now and then by a writer that starts again."""
    left, random = sections(lake, encoding), Random(SEED)
    tables = StreamTables(lake, contract_of(PAYMENTS, encoding), pipeline="chaos")
    while any(left.values()):
        partition = random.choice([p for p, own in left.items() if own])
        tables.commit([left[partition].pop(0)], gaps=lambda *_: False, now_ms=NOW_MS)
        if random.random() < 0.3:
            tables = StreamTables(lake, contract_of(PAYMENTS, encoding), pipeline="chaos")


def faults(lake: Lake) -> list[str]:
    produced = {(PAYMENTS, partition): COUNT for partition in range(PAYMENTS.partitions)}
    return verify(lake, SEED, produced, standings(lake, [contract_of(PAYMENTS)], "chaos"))[1]


@pytest.mark.parametrize("encoding", WRITERS)
def test_the_tables_are_what_the_keys_lived_through(encoding: str, tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path))
    filled(lake, encoding)
    assert faults(lake) == []


@pytest.mark.parametrize("table", ["payments", "payments_history", "_tidegate/memory/payments"])
@pytest.mark.parametrize("damage", ["lost", "changed"])
def test_one_wrong_row_is_found_by_both_readers(right: Path, tmp_path: Path, table: str, damage: str) -> None:
    lake = Lake.open(str(shutil.copytree(right, tmp_path / "lake")))
    delta = DeltaTable(lake.table_uri(table))
    place = reader(lake).execute(f"SELECT id, _order_minor FROM delta_scan('{lake.table_uri(table)}')").fetchone()
    where = "id = {} AND _order_minor = {}".format(*place or ())
    if damage == "lost":
        delta.delete(where)
    else:
        delta.update({"_op": "'r'"}, predicate=where)
    found = "\n".join(faults(lake))
    for who in ("DuckDB", "deltalake"):
        assert f"{table} as {who} reads it: it lacks 1 rows" in found
        assert (f"{table} as {who} reads it: it holds wrongly 1 rows" in found) is (damage == "changed")

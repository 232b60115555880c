"""`tidegate demo`: from an empty folder to tables that answer queries, and nothing left running unless asked for."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.demo import SAMPLE
from jobs.query import run_query
from jobs.stack import Stack
from tests.flows.command import Said, tidegate

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

STREAMS = ("orders", "products", "users")
# What is wrong in the sample: broken by hand, or as real users, orders and products are.
REJECTED = {
    "orders": {"qty_maximum": 1, "undecodable": 1, "unit_price_plausible": 1, "wrong_type:user_id": 1},
    "products": {"no_envelope": 1, "sku_in_catalogue": 1, "tags_required": 1},
    "users": {"email_pattern": 1, "name_required": 5, "undecodable": 2, "wrong_type:id": 1},
}


@dataclass(frozen=True)
class Shown:
    """What the demo printed: the cells of its tables' rows, and its words."""

    said: Said
    rows: list[list[str]]

    def row(self, first: str) -> list[str]:
        """Give the first row that begins with a cell."""
        return next(row for row in self.rows if row[0] == first)


def demo(*arguments: str, environment: dict[str, str] | None = None) -> Shown:
    """Run the demo to its end."""
    said = tidegate("demo", *arguments, environment=environment, at_most_seconds=600)
    lines = [line.strip("│ ") for line in said.out.splitlines() if line.startswith("│")]
    return Shown(said, [[cell.strip() for cell in line.split("│")] for line in lines])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "home"


@pytest.fixture(scope="module")
def shown(home: Path) -> Shown:
    """The demo with a local lake, once."""
    return demo("--home", str(home))


def test_the_demo_ends_by_itself_and_stops_what_it_started(shown: Shown, home: Path) -> None:
    assert shown.said.code == 0, shown.said.words
    processes = Stack(home).status()
    assert {process.component for process in processes} == {"kafka", "flink"}
    assert not [process for process in processes if process.running]
    assert Stack(home).workers() == []


def test_the_demo_tells_where_the_tables_and_the_dashboard_are(shown: Shown, home: Path) -> None:
    assert re.search(rf"tables: {home}/lake ", shown.said.words)
    assert re.search(r"dashboard: http://127\.0\.0\.1:\d+", shown.said.words)


def test_the_demo_shows_how_many_records_became_what(shown: Shown) -> None:
    sample = gzip.decompress(SAMPLE.read_bytes()).splitlines()
    read = Counter(json.loads(line)["topic"].rpartition(".")[2] for line in sample)
    for stream in STREAMS:
        _, total, applied, quarantined, rules, late, kinds, latency = shown.row(stream)
        tombstones = int(dict([kinds.rsplit(" ", 1)])["tombstone"])
        assert int(total) == read[stream]
        assert int(applied) + int(quarantined) + tombstones == read[stream]
        assert {name: int(n) for name, n in (rule.rsplit(" ", 1) for rule in rules.split(", "))} == REJECTED[stream]
        assert int(late) <= int(applied)
        assert 0 < float(latency.removesuffix(" s")) < 60


def test_the_demo_shows_masked_users_and_why_records_were_refused(shown: Shown, home: Path) -> None:
    first = shown.row("1")
    assert re.fullmatch(r"[0-9a-f]{12}\.\.\.@example\.com", first[1])
    assert re.fullmatch(r"U\*+", first[2])
    stages = Counter(row[3] for row in shown.rows if row[0].startswith("cdcj."))
    names = ("users", "orders", "products")
    union = " UNION ALL ".join(f"SELECT _stage FROM {name}_quarantine" for name in names)
    assert stages == Counter(stage for (stage,) in run_query(union, str(home / "lake"))[1])
    assert sum(stages.values()) == 13


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("s3"), components=("s3",)) as running:
        yield running


def test_the_demo_fills_a_lake_on_s3_and_keeps_running_when_told(s3: Stack, shown: Shown, tmp_path: Path) -> None:
    home, environment = tmp_path / "kept", s3.s3_environment
    try:
        again = demo("--lake", f"{s3.lake}/demos", "--keep", "--home", str(home), environment=environment)
        assert again.said.code == 0, again.said.words
        # The same records become the same rows, wherever the tables are.
        assert [again.row(stream)[:5] for stream in STREAMS] == [shown.row(stream)[:5] for stream in STREAMS]
        (uri,) = re.findall(r"tables: (s3://\S+)", again.said.words)
        assert tidegate("stack", "status", "--home", str(home)).code == 0
        sql = "SELECT count(*) AS rows FROM users_changes"
        asked = tidegate("query", sql, "--lake", uri, "--json", environment=environment)
        assert json.loads(asked.out) == [{"rows": int(shown.row("users")[2])}]
        assert environment["AWS_SECRET_ACCESS_KEY"] not in again.said.words
        refused = tidegate("query", sql, "--lake", uri, environment={**environment, "AWS_SECRET_ACCESS_KEY": "wrong"})
        assert refused.code == 1
        assert "Correct the secret key" in refused.words
    finally:
        assert tidegate("stack", "down", "--home", str(home)).code == 0
    assert not [process for process in Stack(home).status() if process.running]

"""The command `tidegate migrate`: what it says beforehand, what it refuses, and what it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from contracts.load import load_contract
from jobs import cli, migrate
from jobs.cluster import Cluster
from jobs.errors import ClusterUnreachable, RunRefused, TidegateError
from jobs.launch import FOLDER
from lakehouse.lake import Lake
from tests.flows.streams import ID, write_contract
from tests.lakehouse.rows import NOW, no_gaps, row, section, tables, write


def column(kind: str) -> dict[str, Any]:
    return {"name": "count", "logicalType": "number" if "(" in kind else "integer", "physicalType": kind}


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Path, Path]:
    """Give the contracts and the lake of a stream whose contract names a wider type than its tables have."""
    folder, lake = tmp_path / "contracts", Lake.open(str(tmp_path / "lake"))
    contract = load_contract(
        write_contract(folder, "orders", "shop.orders", (ID, column("integer"))) / "orders.odcs.yaml"
    )
    made = [row(n, count=n) for n in range(3)]
    for one in made:
        del one["email"]
    tables(lake, contract).commit(write(lake, section(made, of=contract)), gaps=no_gaps, now_ms=NOW)
    write_contract(folder, "orders", "shop.orders", (ID, column("numeric(12,2)")))
    return folder, tmp_path / "lake"


def tidegate(shop: tuple[Path, Path], *more: str) -> Any:
    folder, lake = shop
    where = ("--contracts", str(folder), "--lake", str(lake), "--name", "test")
    return CliRunner().invoke(cli.app, ["migrate", "--stream", "orders", *where, *more])


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(shop: tuple[Path, Path]) -> None:
    for _ in range(2):
        said = tidegate(shop, "--dry-run", "--json")
        assert said.exit_code == 0
        (one,) = json.loads(said.stdout)
        assert (one["table"], one["version"], one["files"]) == ("orders_changes", None, 1)
        assert one["changes"] == ["count from int64 to decimal128(38, 2)"]
    assert "nothing was changed" in tidegate(shop, "--dry-run").stdout


def test_migrated_tables_are_taken_by_the_next_start_and_again_there_is_nothing_to_do(shop: tuple[Path, Path]) -> None:
    (one,) = json.loads(tidegate(shop, "--json").stdout)
    assert one["version"] == one["from_version"] + 1
    assert "nothing to migrate" in tidegate(shop).stdout
    stream = tables(Lake.open(str(shop[1])), load_contract(shop[0] / "orders.odcs.yaml"))
    stream.prepare()
    assert stream.progress() == {("shop.orders", 0): 2}


def test_it_refuses_while_the_pipelines_job_runs(shop: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake.open(str(shop[1]))
    lake.put(f"{FOLDER}/test.json", json.dumps({"job": "j", "request": {"cluster": "127.0.0.1:1"}}).encode())
    with monkeypatch.context() as running:
        running.setattr(Cluster, "running", lambda self, name: "j1")
        said = tidegate(shop)
        assert isinstance(said.exception, RunRefused) and "job j1 of pipeline test runs" in str(said.exception)
        assert tidegate(shop, "--dry-run").exit_code == 0

    def away(*_: object) -> None:
        raise ClusterUnreachable("no answer")

    monkeypatch.setattr(Cluster, "running", away)
    assert tidegate(shop).exit_code == 0


def test_an_unknown_stream_is_refused_with_those_there_are(shop: tuple[Path, Path]) -> None:
    with pytest.raises(TidegateError, match="no contract describes other: there are orders"):
        migrate.migrate_stream(
            "other", shop[0], str(shop[1]), "test", keys=None, cluster=None, dry_run=True, console=cli.err
        )

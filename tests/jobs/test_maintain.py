"""`tidegate maintain` and what `tidegate status` says of tables, as a user sees them, without a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts.load import load_contracts
from jobs import maintain
from jobs.cluster import Cluster
from jobs.errors import ClusterUnreachable
from jobs.launch import Request, record_run
from jobs.maintain import job_of, shown_bytes
from jobs.status import read_status
from lakehouse.lake import Lake
from lakehouse.maintenance import Job
from lakehouse.table_facts import facts_of
from lakehouse.upkeep import Requests
from tests.flows.command import COMMAND, Said, tidegate
from tests.flows.streams import ID, NOTE, write_contract
from tests.lakehouse.rows import no_gaps, row, section, tables, write

DAY = int(timedelta(days=1).total_seconds())
NOBODY = "127.0.0.1:9"  # no cluster answers here


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Two streams, each committed ten times, all of it ten days ago as far as the store can tell."""
    contracts = write_contract(tmp_path / "contracts", "first", "shop.first", [{**ID, "primaryKey": True}, NOTE])
    write_contract(contracts, "second", "shop.second", [{**ID, "primaryKey": True}, NOTE])
    lake = Lake.open(str(tmp_path / "lake"))
    for contract in load_contracts(contracts, {}):
        stream = tables(lake, contract, pipeline="main")
        for offset in range(10):
            made = row(offset, topic=contract.topics[0], note="n")
            del made["email"]
            stream.commit(write(lake, section([made], of=contract)), gaps=no_gaps, now_ms=int(time.time() * 1000))
    for path in (tmp_path / "lake").rglob("*"):
        os.utime(path, (time.time() - 10 * DAY,) * 2)
    return tmp_path


def ask(shop: Path, *flags: str, command: str = "maintain") -> Said:
    return tidegate(command, "--contracts", str(shop / "contracts"), "--lake", str(shop / "lake"), *flags)


def young(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lakehouse.maintenance.QUIET", timedelta(0))


def test_maintain_says_what_it_did_to_each_table(shop: Path) -> None:
    dry = ask(shop, "--dry-run")
    assert (dry.code, "dry run: nothing was changed" in dry.words) == (0, True)
    assert "the writer would be asked to merge files of: first, second" in dry.words  # the commits are young
    assert not (shop / "lake" / "_tidegate" / "maintenance").exists()
    time.sleep(0.01)
    said = ask(shop, "--json")
    assert said.code == 0, said.words
    done = json.loads(said.out)
    assert (done["pipeline"], done["job"], done["failed"]) == ("main", "ended", [])
    assert [stream["stream"] for stream in done["streams"]] == ["first", "second"]
    assert done["streams"][0]["asked"] and done["shared"]["segments"]["deleted"] == 20
    assert Requests(Lake.open(str(shop / "lake")), "main").all() == {"first", "second"}
    shown = ask(shop, "--stream", "second")
    assert shown.code == 0 and "second_changes" in shown.words and "first_changes" not in shown.words
    assert "the newest commit is only" in shown.words and "segments" not in shown.words
    table = ask(shop, command="status")
    assert "the writer of first is asked to merge files" in table.words


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--retention", "10m"), "a retention of 0:10:00 is too short"),
        (("--retention", "soon"), "'soon' is not a duration"),
        (("--every", "often"), "'often' is not a duration"),
        (("--stream", "thrid"), "no contract describes thrid: there are first, second"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(shop: Path, flags: tuple[str, ...], said: str) -> None:
    refused = ask(shop, *flags)
    assert refused.code == 1 and said in refused.words


def test_a_table_that_fails_is_told_with_exit_code_1_and_the_others_are_maintained(shop: Path) -> None:
    (shop / "lake" / "first_changes" / "_delta_log" / f"{5:020}.json").write_text("{not JSON")
    said = ask(shop, "--json")
    done = json.loads(said.out)
    assert said.code == 1 and "first_changes" in done["failed"][0]
    assert [stream["asked"] for stream in done["streams"]] == [False, True]
    assert "failed:" in ask(shop).words


def test_every_goes_on_until_interrupted(shop: Path) -> None:
    where = ["--contracts", str(shop / "contracts"), "--lake", str(shop / "lake")]
    process = subprocess.Popen(
        [COMMAND, "maintain", *where, "--every", "1s", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    rounds = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130 and b"Traceback" not in words
    assert all(done["failed"] == [] for done in rounds)


def test_whether_the_job_runs_is_asked_of_the_cluster_it_was_submitted_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake.open(str(tmp_path))
    assert job_of(lake, "main", None) is Job.ENDED  # never run
    request = Request(Path("c"), "k:1", str(tmp_path), "flink:8081")
    record_run(lake, request, "id", ["docs"])
    asked: list[str] = []
    answer: dict[str, Any] = {}

    def running(cluster: Cluster, name: str) -> str | None:
        asked.append(f"{cluster.address} {name}")
        if not answer:
            raise ClusterUnreachable("away")
        found: str | None = answer["job"]
        return found

    monkeypatch.setattr(Cluster, "running", running)
    assert job_of(lake, "main", None) is Job.UNKNOWN
    answer["job"] = "id"
    assert job_of(lake, "main", "other:8081") is Job.RUNS
    answer["job"] = None
    assert job_of(lake, "main", None) is Job.ENDED
    assert asked == ["flink:8081 tidegate main", "other:8081 tidegate main", "flink:8081 tidegate main"]


def test_status_tells_how_worn_each_table_is(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    young(monkeypatch)
    monkeypatch.setattr("lakehouse.merge.compaction.SMALL_COUNT", 2)
    lake = Lake.open(str(shop / "lake"))
    before = {facts.table: facts for facts in facts_of(lake, load_contracts(shop / "contracts"), "main")["first"]}
    changes = before["first_changes"]
    assert (changes.files, changes.rows, changes.dead, changes.small_files) == (10, 10, 0, 10)
    assert (changes.commits_since_checkpoint, changes.commits_in_log, changes.version) == (10, 11, 10)
    assert changes.compacted_ms is None and changes.maintained_ms is None and changes.bytes > 0
    orders = maintain.orders_of("1h", dry_run=False)
    done = maintain.maintain(
        maintain.Asked(shop / "contracts", str(shop / "lake"), "main", (), NOBODY, orders), _quiet()
    )
    assert done.job is Job.UNKNOWN and not done.told
    monkeypatch.setattr("lakehouse.maintenance.QUIET_UNKNOWN", timedelta(0))
    maintain.maintain(maintain.Asked(shop / "contracts", str(shop / "lake"), "main", (), NOBODY, orders), _quiet())
    status = read_status(
        shop / "contracts", str(shop / "lake"), "main", kafka=None, cluster=None, kafka_config=None
    ).as_dict()
    after = {facts["table"]: facts for stream in status["streams"] for facts in stream["facts"]}
    changes = after["first_changes"]
    assert (changes["files"], changes["rows"], changes["small_files"], changes["dead_share"]) == (1, 10, 1, 0)
    assert changes["commits_since_checkpoint"] < 3 and changes["maintained_ms"] >= changes["compacted_ms"] > 0
    shown = ask(shop, command="status")
    assert "first_changes" in shown.words and "maintained" in shown.words


def _quiet() -> Any:
    import io

    from rich.console import Console

    return Console(file=io.StringIO())


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123_456, "123 kB"), (5_500_000_000_000, "5.5 TB")],
)
def test_bytes_are_shown_as_people_read_them(count: int, shown: str) -> None:
    assert shown_bytes(count) == shown

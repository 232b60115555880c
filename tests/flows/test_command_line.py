"""The `tidegate` command from end to end, as a process: load, run, status, query, pause, resume, contract check."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from jobs import cli
from jobs.cluster import Cluster
from jobs.stack import Stack
from jobs.stack.cli import app as stack_app
from lakehouse.parking import CACHE_SECONDS
from tests.flows.command import Said, tidegate
from tests.flows.pipeline import Pipeline
from tests.flows.streams import ids, until, write_contract

STREAMS = ("first", "second")


class Shop:
    """One pipeline of two streams, run by nothing but the command."""

    def __init__(self, stack: Stack, folder: Path, name: str) -> None:
        self.stack, self.name = stack, name
        self.lake, self.contracts = folder / "lake", folder / "contracts"
        self.sent = 0
        self._file = folder / "messages.jsonl"
        for stream in STREAMS:
            write_contract(self.contracts, stream, f"{name}.{stream}")

    def load(self, count: int) -> Said:
        """Load the next events into both topics."""
        numbers = range(self.sent, self.sent + count)
        self._file.write_text("".join(self._line(s, n) + "\n" for s in STREAMS for n in numbers), encoding="utf-8")
        self.sent += count
        return tidegate("load", str(self._file), "--kafka", self.stack.kafka_address, "--json")

    def run(self, *flags: str) -> Said:
        where = ("--kafka", self.stack.kafka_address, "--cluster", self.stack.flink_address)
        return tidegate(
            "run", "--contracts", str(self.contracts), *where, *self._own(), "--commit-seconds", "1", *flags
        )

    def status(self, *flags: str) -> Said:
        # Addresses may come from the environment too.
        environment = {"TIDEGATE_KAFKA": self.stack.kafka_address, "TIDEGATE_CLUSTER": self.stack.flink_address}
        return tidegate("status", "--contracts", str(self.contracts), *self._own(), *flags, environment=environment)

    def states(self) -> tuple[int, dict[str, str]]:
        """Give the exit code of status, and each stream's state."""
        said = self.status("--json")
        return said.code, {stream["stream"]: stream["state"] for stream in json.loads(said.out)["streams"]}

    def ask(self, verb: str, stream: str, *flags: str) -> Said:
        return tidegate(verb, stream, *self._own(), *flags)

    def ids(self, stream: str) -> list[int]:
        return ids(Pipeline(self.stack, self.lake, self.name), stream)

    def cancel(self) -> None:
        cluster = Cluster(self.stack.flink_address)
        while job := cluster.running(f"tidegate {self.name}"):
            cluster.cancel(job)

    def _own(self) -> tuple[str, ...]:
        return ("--lake", str(self.lake), "--name", self.name)

    def _line(self, stream: str, number: int) -> str:
        value = json.dumps({"id": number, "note": f"note {number}"}).encode()
        message: dict[str, Any] = {"topic": f"{self.name}.{stream}", "partition": number % 3, "offset": number}
        return json.dumps({**message, "key_b64": None, "value_b64": base64.b64encode(value).decode(), "headers": []})


@pytest.fixture(scope="module")
def caught_up(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, Said, Said]:
    """A pipeline that has run until it was caught up, with what load and run said."""
    shop = Shop(stack, tmp_path_factory.mktemp("caught"), "caught")
    return shop, shop.load(30), shop.run("--until-caught-up", "--json")


@pytest.mark.integration
def test_load_counts_the_messages_of_each_topic(caught_up: tuple[Shop, Said, Said]) -> None:
    _, loaded, _ = caught_up
    assert loaded.code == 0, loaded.words
    assert json.loads(loaded.out) == {"caught.first": 30, "caught.second": 30}


@pytest.mark.integration
def test_run_until_caught_up_ends_with_everything_committed_and_its_job_stopped(
    caught_up: tuple[Shop, Said, Said],
) -> None:
    shop, _, ran = caught_up
    assert ran.code == 0, ran.words
    summary = json.loads(ran.out)
    assert summary["parked"] == []
    assert summary["dashboard"] == f"http://{shop.stack.flink_address}"
    assert Cluster(shop.stack.flink_address).state(summary["job"]) in ("FINISHED", "CANCELED")
    assert [shop.ids(stream) for stream in STREAMS] == [list(range(30)), list(range(30))]


@pytest.mark.integration
def test_status_tells_per_stream_table_and_partition_what_is_committed(caught_up: tuple[Shop, Said, Said]) -> None:
    shop, _, ran = caught_up
    said = shop.status("--json")
    assert said.code == 0, said.words
    status = json.loads(said.out)
    assert (status["pipeline"], status["healthy"], status["job"]) == ("caught", True, json.loads(ran.out)["job"])
    for stream in status["streams"]:
        name = stream["stream"]
        assert stream["state"] == "level"
        assert stream["counts"]["applied"] == 30
        assert set(stream["tables"]) == {f"{name}_changes", f"{name}_quarantine"}
        assert stream["commit_age_seconds"] >= 0
        assert stream["partitions"] == [
            {"topic": f"caught.{name}", "partition": n, "committed": 9, "lag": 0} for n in range(3)
        ]
    shown = shop.status()
    assert (shown.code, "caught.second" in shown.words) == (0, True)


@pytest.mark.integration
def test_status_of_a_stopped_pipeline_that_is_behind_has_exit_code_1(stack: Stack, tmp_path: Path) -> None:
    shop = Shop(stack, tmp_path, "behind")
    shop.load(3)
    assert shop.states() == (1, {"first": "stopped", "second": "stopped"})


@pytest.mark.integration
def test_query_gives_rows_as_json_or_as_a_table(caught_up: tuple[Shop, Said, Said]) -> None:
    shop, _, _ = caught_up
    sql = "SELECT id, note, _partition FROM first_changes WHERE id < 2 ORDER BY id"
    asked = tidegate("query", sql, "--lake", str(shop.lake), "--json")
    assert asked.code == 0, asked.words
    assert json.loads(asked.out) == [
        {"id": 0, "note": "note 0", "_partition": 0},
        {"id": 1, "note": "note 1", "_partition": 1},
    ]
    shown = tidegate("query", sql, environment={"TIDEGATE_LAKE": str(shop.lake)})
    assert (shown.code, "note 1" in shown.words) == (0, True)


@pytest.mark.integration
def test_query_says_what_is_wrong_with_the_sql(caught_up: tuple[Shop, Said, Said]) -> None:
    shop, _, _ = caught_up
    asked = tidegate("query", "SELECT nothing FROM first_changes", "--lake", str(shop.lake))
    assert asked.code == 1
    assert "nothing" in asked.words


@pytest.mark.integration
def test_pause_refuses_a_stream_that_the_pipeline_does_not_have(caught_up: tuple[Shop, Said, Said]) -> None:
    shop, _, _ = caught_up
    unknown = shop.ask("pause", "frist")
    assert (unknown.code, "it has first, second" in unknown.words) == (1, True)
    elsewhere = tidegate("pause", "first", "--lake", str(shop.lake), "--name", "nobody")
    assert (elsewhere.code, "check --lake and --name" in elsewhere.words) == (1, True)


@pytest.fixture
def shop(stack: Stack, tmp_path: Path) -> Iterator[Shop]:
    """A pipeline whose job runs on, with ten events in each stream."""
    made = Shop(stack, tmp_path, "paused")
    made.load(10)
    try:
        yield made
    finally:
        made.cancel()


@pytest.mark.integration
def test_a_paused_stream_stands_still_while_others_go_on_and_reads_on_when_resumed(shop: Shop) -> None:
    started = shop.run("--json")
    assert started.code == 0, started.words
    until("the first events", lambda: all(len(shop.ids(stream)) == 10 for stream in STREAMS))

    paused = shop.ask("pause", "first", "--reason", "looking at it")
    assert paused.code == 0, paused.words
    assert "tidegate resume first" in paused.words
    time.sleep(CACHE_SECONDS + 0.5)  # until then the job may not have seen it
    shop.load(10)
    until("the other stream goes on", lambda: len(shop.ids("second")) == 20)
    assert shop.ids("first") == list(range(10))
    assert shop.states() == (1, {"first": "parked", "second": "running"})
    assert "looking at it" in shop.status().words

    resumed = shop.ask("resume", "first")
    assert resumed.code == 0, resumed.words
    assert "goes on in job" in resumed.words
    assert json.loads(started.out)["job"] not in resumed.words
    until("the stream reads on", lambda: len(shop.ids("first")) == 20)
    assert [shop.ids(stream) for stream in STREAMS] == [list(range(20)), list(range(20))]
    until("all is well", lambda: shop.states() == (0, {"first": "running", "second": "running"}))

    again = shop.ask("resume", "first")
    assert again.code == 1
    assert "not paused or parked" in again.words


def test_contract_check_says_that_contracts_are_sound(tmp_path: Path) -> None:
    write_contract(tmp_path, "good", "some.topic")
    checked = tidegate("contract", "check", str(tmp_path))
    assert (checked.code, checked.words) == (0, "1 contracts are sound: good")
    assert tidegate("contract", "check", str(tmp_path), "--json").out == "[]\n"


def test_contract_check_shows_all_faults_of_all_files_together(tmp_path: Path) -> None:
    write_contract(tmp_path, "good", "some.topic")
    write_contract(tmp_path, "one", "some.topic", encoding="yaml", start="tomorrow")
    write_contract(tmp_path, "two", "some.topic", [{"name": "id", "logicalType": "integer", "physicalType": "bigger"}])
    checked = tidegate("contract", "check", str(tmp_path))
    assert checked.code == 1
    assert "3 fault(s) in 2 contract file(s)" in checked.words
    for part in ("one.odcs.yaml:9:", "unknown value 'yaml'", "one.odcs.yaml:15:", "Write earliest, latest or a time"):
        assert part in checked.words
    assert "two.odcs.yaml:20: schema[0].properties[0].physicalType: unknown type 'bigger'" in checked.words
    as_json = tidegate("contract", "check", str(tmp_path), "--json")
    assert as_json.code == 1
    faults = json.loads(as_json.out)
    assert sorted(Path(fault["file"]).name for fault in faults) == ["one.odcs.yaml", "one.odcs.yaml", "two.odcs.yaml"]
    assert all(fault["line"] > 0 and fault["path"] for fault in faults)


def commands() -> Iterator[tuple[str, ...]]:
    """Give the words of every command, such as ("contract", "check")."""
    yield from _below(typer.main.get_command(cli.app), ())
    yield from _below(typer.main.get_command(stack_app), ("stack",))


def _below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from _below(child, (*words, name))
    else:
        yield words


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_the_help_of_every_command_shows_an_example_of_it(words: tuple[str, ...]) -> None:
    shown = tidegate(*words, "--help")
    assert shown.code == 0
    assert f"Example: tidegate {' '.join(words)}" in shown.words


def test_a_wrong_option_has_exit_code_2() -> None:
    assert tidegate("run", "--nothing").code == 2

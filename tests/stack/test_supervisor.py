"""What the supervisor promises for every component, tried with components that start in a moment."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from jobs.stack import NotRunning, Stack, StackError
from jobs.stack.components import COMPONENTS
from jobs.stack.processes import marked
from jobs.stack.state import State
from tests.stack.tiny import TINY, start_until_stopped

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, component in TINY.items():
        monkeypatch.setitem(COMPONENTS, name, component)


def pids(home: Path) -> dict[str, int]:
    return {s.process: s.pid for s in Stack(home).status() if s.pid}


def left_over(home: Path) -> list[psutil.Process]:
    state = State.read(home / "state.json")
    return [p for name in TINY for p in marked(state.mark, name)]


def test_a_second_up_leaves_alone_what_runs(tmp_path: Path) -> None:
    with Stack(tmp_path, ["one"]):
        first = pids(tmp_path)
        assert Stack(tmp_path, ["one", "two"]).up() == ["two"]
        assert pids(tmp_path)["one"] == first["one"]
        Stack(tmp_path).down()


def test_the_end_of_a_with_block_stops_only_what_it_started(tmp_path: Path) -> None:
    Stack(tmp_path, ["one"]).up()
    with Stack(tmp_path, ["one", "two"]):
        pass
    assert list(pids(tmp_path)) == ["one"]
    assert Stack(tmp_path).down() == ["one"]
    assert Stack(tmp_path).down() == []


def test_a_kept_stack_runs_on_after_its_with_block(tmp_path: Path) -> None:
    with Stack(tmp_path, ["one"]) as stack:
        stack.keep()
    assert pids(tmp_path)
    Stack(tmp_path).down()


def test_two_stacks_do_not_see_each_other(tmp_path: Path) -> None:
    with Stack(tmp_path / "a", ["one"]) as a, Stack(tmp_path / "b", ["one"]) as b:
        assert a.address("one") != b.address("one")
        b.down()
        assert a.status()[0].healthy


def test_addresses_survive_a_restart(tmp_path: Path) -> None:
    with Stack(tmp_path, ["one"]) as stack:
        before = stack.address("one")
        stack.kill("one")
        stack.restart("one")
        assert stack.address("one") == before
    with Stack(tmp_path, ["one"]) as stack:
        assert stack.address("one") == before


def test_a_port_that_somebody_else_has_taken_is_replaced(tmp_path: Path) -> None:
    with Stack(tmp_path, ["one"]) as stack:
        port = stack.place("one").ports["tcp"]
    with socket.create_server(("127.0.0.1", port)), Stack(tmp_path, ["one"]) as stack:
        assert stack.place("one").ports["tcp"] != port


def test_a_killed_process_is_seen_and_the_next_up_starts_it_again(tmp_path: Path) -> None:
    with Stack(tmp_path, ["one"]) as stack:
        stack.kill("one")
        wait_until(lambda: not stack.status()[0].running)
        assert stack.status()[0].missing == "stopped"
        with pytest.raises(NotRunning, match="one is not running"):
            stack.kill("one")
        assert stack.up() == ["one"]
        assert stack.status()[0].healthy


def test_a_failed_start_shows_the_log_and_stops_the_others(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"broken did not start: .*\n.*\n  the disk is on fire"):
        Stack(tmp_path, ["one", "broken"]).up()
    assert not left_over(tmp_path)


def test_a_start_that_takes_too_long_has_failed(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="never did not start: the port is not open yet after 0 s"):
        Stack(tmp_path, ["never"]).up()
    assert not left_over(tmp_path)


def test_a_failed_start_leaves_alone_what_ran_before(tmp_path: Path) -> None:
    with Stack(tmp_path, ["one"]):
        with pytest.raises(StackError):
            Stack(tmp_path, ["one", "broken"]).up()
        assert list(pids(tmp_path)) == ["one"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    program = subprocess.Popen([sys.executable, "-c", start_until_stopped(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE)
    wait_until(lambda: (tmp_path / "state.json").exists() and len(left_over(tmp_path)) == 2)
    program.send_signal(number)
    program.communicate(timeout=20)
    assert program.returncode != 0
    assert not left_over(tmp_path)


def test_a_process_that_ignores_the_request_to_end_is_forced(tmp_path: Path) -> None:
    Stack(tmp_path, ["stubborn"]).up()
    assert Stack(tmp_path).down() == ["stubborn"]
    assert not left_over(tmp_path)


def test_workers_that_outlive_their_process_are_ended_with_it(tmp_path: Path) -> None:
    stack = Stack(tmp_path, ["parent"])
    stack.up()
    wait_until(lambda: len(left_over(tmp_path)) == 2)
    stack.kill("parent")
    wait_until(lambda: len(left_over(tmp_path)) == 1)
    stack.down()
    assert not left_over(tmp_path)


def test_a_restart_may_leave_workers_alive_on_purpose(tmp_path: Path) -> None:
    with Stack(tmp_path, ["parent"]) as stack:
        wait_until(lambda: len(left_over(tmp_path)) == 2)
        stack.kill("parent")
        stack.restart("parent", sweep=False)
        wait_until(lambda: len(left_over(tmp_path)) == 3)


def test_a_recycled_process_number_is_never_touched(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as stranger:
        entry = {"pid": stranger.pid, "started": time.time() - 3600, "log": str(tmp_path / "log")}
        component = {"ports": {"tcp": 1}, "settings": {}, "processes": {"one": entry}}
        (tmp_path / "state.json").write_text(json.dumps({"mark": "m", "components": {"one": component}}))
        assert Stack(tmp_path).down() == []
        assert stranger.poll() is None
        stranger.kill()


def test_an_unknown_component_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="no component 'zookeeper': choose from kafka, flink, s3, registry"):
        Stack(tmp_path, ["zookeeper"])


def test_a_damaged_state_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(StackError, match="is damaged"):
        Stack(tmp_path).status()


def wait_until(true: object, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)

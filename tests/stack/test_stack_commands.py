"""`tidegate stack` as a user and a script see it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.stack.cli import app
from jobs.stack.components import COMPONENTS
from tests.stack.tiny import TINY


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


def test_up_status_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMPONENTS, "one", TINY["one"])
    home = ("--home", str(tmp_path))
    assert "nothing has been started" in run("status", *home)[1]
    code, said = run("up", "one", *home)
    assert (code, "started one" in said) == (0, True)
    assert "was running already" in run("up", "one", *home)[1]
    code, said = run("status", *home, "--json")
    (process,) = json.loads(said)
    assert code == 0
    assert process["healthy"]
    assert Path(process["log"]).exists()
    assert json.loads(run("down", *home, "--json")[1]) == ["one"]
    assert "nothing was running" in run("down", *home)[1]
    assert run("status", *home)[0] == 1


@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_each_command_has_help_with_an_example(command: str) -> None:
    code, said = run(command, "--help")
    assert code == 0
    assert f"Example: tidegate stack {command}" in said

"""What `tidegate status` says of rows that a new snapshot does not hold."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from jobs import status
from jobs.status import Status, show_status
from lakehouse.anchor import AnchorState
from lakehouse.standing import Standing
from tests.lakehouse.state.source import TOPIC, contract


@pytest.mark.parametrize(("removed", "said"), [(0, "left as they are"), (7, "removed")])
def test_rows_that_vanished_are_told(removed: int, said: str) -> None:
    snapshots = {TOPIC: {"found": 7, "removed": removed}, "other": {"found": 0, "removed": 0}, "new": {"found": None}}
    state = Standing(AnchorState("p", "docs", snapshots=snapshots))
    found = Status("p", None, None, (status._stream(contract(), state, None, None, None),))
    console = Console(file=io.StringIO(), width=200)
    show_status(found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"docs: the newest snapshot of {TOPIC} lacks 7 rows of the table, {said}" in text
    assert "other" not in text
    assert found.as_dict()["streams"][0]["vanished"] == {TOPIC: (7, removed)}


def test_it_is_told_why_rows_that_vanished_are_left(capsys: pytest.CaptureFixture[str]) -> None:
    left = {"removed": 0, "keyless": True}
    state = AnchorState("p", "docs", snapshots={TOPIC: {"found": 7, **left}, "other": {"found": 0, **left}})
    found = status._stream(contract(), Standing(state), None, None, None)
    show_status(Status("p", None, None, (found,)), Console(width=250))
    told = capsys.readouterr().out
    assert "left as they are (a record in quarantine without a readable key may be one of them)" in told
    assert found.unsure == (TOPIC,)

"""The pictures in docs/ are those that the code draws of a run."""

from __future__ import annotations

from pathlib import Path

from tests.pictures.event_time import drawn, seen

DOCS = Path(__file__).parents[2] / "docs"


def test_the_pictures_are_up_to_date() -> None:
    page = (DOCS / "event-time.md").read_text("utf-8")
    for name, picture in drawn().items():
        assert (DOCS / name).read_text("utf-8") == picture, "run `python -m tests.pictures.event_time`"
        assert f"({name})" in page


def test_the_run_shows_what_the_page_says() -> None:
    run = seen()
    assert [w for _, w in run.watermarks] == sorted(w for _, w in run.watermarks)
    assert any(one["_late"] for one in run.rows) and run.missed
    assert {one["_complete"] for one in run.windows} == {True, False}

"""Class archives: written by the first run of a program, used by the next, and never a reason for one to fail."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.stack import class_archive as archives
from jobs.stack import flink
from jobs.stack.class_archive import class_archive
from jobs.stack.flink_java import CLIENT, in_order
from jobs.stack.jars import java

LIBRARIES = in_order((flink.distribution() / "lib").glob("*.jar"))
SMALL = ("-XX:TieredStopAtLevel=1",)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLINK_CONF_DIR", str(flink.distribution() / "conf"))
    monkeypatch.setattr(archives, "ARCHIVES", tmp_path / "classes")
    return tmp_path / "classes"


def run(options: Sequence[str], *more: str) -> str:
    """Run Flink's client for its version, and give what it printed."""
    path = ":".join(map(str, LIBRARIES))
    command = [java(), *SMALL, *options, *more, "-cp", path, CLIENT, "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def run_with_archive(*more: str, options: Sequence[str] = SMALL) -> str:
    with class_archive("client", java(), LIBRARIES, options) as archive:
        return run(archive, *more)


def test_the_second_run_takes_its_classes_from_the_archive_of_the_first(folder: Path, tmp_path: Path) -> None:
    assert run_with_archive().startswith("Version: 2.")
    (kept,) = folder.iterdir()
    log = tmp_path / "loaded.txt"
    assert run_with_archive(f"-Xlog:class+load:file={log}").startswith("Version: 2.")
    (client,) = [line for line in log.read_text(encoding="utf-8").splitlines() if f" {CLIENT} " in line]
    assert "shared objects file (top)" in client
    assert list(folder.iterdir()) == [kept]


def test_other_options_have_another_archive_which_takes_the_place_of_all_there_was(folder: Path) -> None:
    run_with_archive()
    first = set(folder.iterdir())
    (folder / f"{next(iter(first)).stem}.4711").touch()  # of a run that was killed
    run_with_archive(options=(*SMALL, "-Xss2m"))
    second = set(folder.iterdir())
    assert len(second) == 1
    assert not first & second


def test_a_run_that_failed_leaves_no_archive(folder: Path) -> None:
    with pytest.raises(RuntimeError), class_archive("client", java(), LIBRARIES, SMALL) as options:
        run(options)
        raise RuntimeError("refused")
    assert list(folder.iterdir()) == []


def test_a_damaged_archive_is_as_good_as_none(folder: Path) -> None:
    run_with_archive()
    (kept,) = folder.iterdir()
    kept.chmod(0o644)
    kept.write_bytes(b"\0" * 4096)
    assert run_with_archive().startswith("Version: 2.")


def test_a_folder_that_cannot_be_made_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(archives, "ARCHIVES", tmp_path / "file" / "classes")
    assert run_with_archive().startswith("Version: 2.")

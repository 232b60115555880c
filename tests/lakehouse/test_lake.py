"""Opening a lake touches nothing; what the storage refuses is said with what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lakehouse.errors import BucketMissing, LakehouseError, LakeUnavailable, NotWritable, WrongCredentials
from lakehouse.lake import Lake
from tests.lakehouse.rows import NOW, no_gaps, row, section, tables, write
from tests.lakehouse.s3_server import BUCKET, SECRET, S3Server


def test_opening_creates_nothing(tmp_path: Path) -> None:
    Lake.open(str(tmp_path / "lake"))
    Lake.open("s3://nowhere/prefix", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["gs://bucket/x", "s3://", "http://host/x"])
def test_an_address_of_another_kind_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="neither a local path nor"):
        Lake.open(uri)


def test_a_relative_path_and_a_file_address_name_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Lake.open("lake").uri == Lake.open(f"file://{tmp_path}/lake").uri == str(tmp_path / "lake")


def test_secrets_are_not_shown() -> None:
    assert "hush" not in repr(Lake.open("s3://b/p", {"AWS_SECRET_ACCESS_KEY": "hush", "AWS_ACCESS_KEY_ID": "hush"}))


def test_small_objects(lake: Lake) -> None:
    assert lake.get("a/b") is None and not lake.exists("a/b")
    lake.put("a/b", b"1")
    lake.put("a/b", b"2")
    assert lake.get("a/b") == b"2" and lake.exists("a/b")


def test_only_folders_with_a_delta_log_are_tables(lake: Lake) -> None:
    assert lake.tables() == []
    lake.put("notes/readme.txt", b"")
    tables(lake).commit(write(lake, section([row(0)])), gaps=no_gaps, now_ms=NOW)
    assert lake.tables() == ["orders_changes", "orders_quarantine"]


VERBS: tuple[Callable[[Lake], object], ...] = (
    lambda lake: lake.put("a", b""),
    lambda lake: lake.get("a"),
    lambda lake: lake.tables(),
    lambda lake: write(lake, section([row(0)])),
    lambda lake: tables(lake).prepare(),
)


@pytest.mark.integration
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("bucket", "changed", "error", "remedy"),
    [
        (BUCKET, {"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, WrongCredentials, "Correct the"),
        (BUCKET, {"AWS_ACCESS_KEY_ID": "nobody"}, WrongCredentials, "Correct the"),
        ("no-such-bucket", {}, BucketMissing, "Create the bucket"),
        (BUCKET, {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, LakeUnavailable, "tried again"),
    ],
)
def test_what_s3_refuses_is_said(
    s3_server: S3Server,
    verb: Callable[[Lake], object],
    bucket: str,
    changed: dict[str, str],
    error: type[LakehouseError],
    remedy: str,
) -> None:
    lake = Lake.open(f"s3://{bucket}/prefix", s3_server.options(**changed))
    with pytest.raises(error, match=remedy) as caught:
        verb(lake)
    said = str(caught.value)
    assert f"s3://{bucket}/prefix" in said and "\n" not in said and len(said) < 900
    assert SECRET not in said and "wrong-secret" not in said


@pytest.mark.parametrize("verb", VERBS)
def test_a_file_where_the_folder_must_be_is_said(tmp_path: Path, verb: Callable[[Lake], object]) -> None:
    (tmp_path / "lake").write_text("I am a file")
    with pytest.raises(NotWritable):
        verb(Lake.open(str(tmp_path / "lake")))


WITHOUT_RIGHTS = """
import os, sys
from lakehouse.errors import NotWritable
from lakehouse.lake import Lake
if os.getuid() == 0: os.setgid(65534); os.setuid(65534)  # only now: others may not read the interpreter
try:
    Lake.open(sys.argv[1]).put("a", b"")
except NotWritable as error:
    print(error)
"""


def test_a_folder_that_may_not_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir(mode=0o555)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RIGHTS, str(tmp_path / "lake")], capture_output=True, text=True, check=False
    )
    assert "Let the process's user write there" in done.stdout, done.stderr

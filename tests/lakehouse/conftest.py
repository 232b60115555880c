"""One suite for every place a lake can be: each test that takes `lake` runs on local disk and on S3."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.model import Storage
from lakehouse.lake import Lake
from tests.lakehouse.s3_server import BUCKET, S3Server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.integration)])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    if request.param == "local":
        return Lake.open(str(tmp_path / "lake"))
    server: S3Server = request.getfixturevalue("s3_server")
    return Lake.open(f"s3://{BUCKET}/{uuid.uuid4().hex}", server.options())


@pytest.fixture
def local(tmp_path: Path) -> Lake:
    return Lake.open(str(tmp_path / "lake"))


@pytest.fixture(params=list(Storage), ids=str)
def storage(request: pytest.FixtureRequest) -> Storage:
    """Give each way in which tables are written whose rows change."""
    found: Storage = request.param
    return found

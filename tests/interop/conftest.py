"""One Spark session for all tests here; started when the first of them runs, ended after the last."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.spark import Spark

FOREIGN = ("SPARK_HOME", "SPARK_CONF_DIR", "HADOOP_HOME", "HADOOP_CONF_DIR", "PYSPARK_SUBMIT_ARGS")


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spark]:
    with pytest.MonkeyPatch.context() as patched:
        for name in FOREIGN:
            patched.delenv(name, raising=False)
        patched.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        session = Spark(tmp_path_factory.mktemp("spark"))
        yield session
        session.stop()

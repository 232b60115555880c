"""What `flink run` is given."""

from __future__ import annotations

from pathlib import Path

from jobs.flink_client import RESTARTS, client_environment
from jobs.stack.flink import CONFIGURATION


def test_how_soon_a_failed_job_starts_again_is_left_to_the_cluster() -> None:
    ours = {line.partition(":")[0] for line in CONFIGURATION.read_text(encoding="utf-8").splitlines()}
    assert {name for name in ours if name.startswith("restart-strategy")} == set(RESTARTS)
    with client_environment() as environment:
        given = (Path(environment["FLINK_CONF_DIR"]) / "config.yaml").read_text(encoding="utf-8")
    assert "restart-strategy" not in given

"""What `flink run` is given, and what is told of its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.flink_client import RESTARTS, last_words, write_configuration
from jobs.stack.component import Place
from jobs.stack.flink import CONFIGURATION


def test_how_soon_a_failed_job_starts_again_is_left_to_the_cluster(tmp_path: Path) -> None:
    ours = {line.partition(":")[0] for line in CONFIGURATION.read_text(encoding="utf-8").splitlines()}
    assert {name for name in ours if name.startswith("restart-strategy")} == set(RESTARTS)
    write_configuration(Place(tmp_path, ports={}, settings={}))
    assert "restart-strategy" not in (tmp_path / "conf" / "config.yaml").read_text(encoding="utf-8")


def test_who_plans_the_job_loads_nothing_of_what_its_workers_do() -> None:
    working = ["apache_beam", "pandas", "jobs.committer", "jobs.refinery", "lakehouse.commit", "udfs.refine"]
    program = f"import sys, jobs.ingest; print([m for m in {working} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


OUTPUT = """\
WARNING: sun.reflect.Reflection.getCallerClass is not supported
Traceback (most recent call last):
  File "ingest.py", line 11, in <module>
    main(sys.argv[1:])
{error}
org.apache.flink.client.program.ProgramAbortException: java.lang.RuntimeException: Python process exits with code: 1
\tat org.apache.flink.client.python.PythonDriver.main(PythonDriver.java:134)
Caused by: java.lang.RuntimeException: Python process exits with code: 1
"""


@pytest.mark.parametrize(
    "error",
    ["jobs.errors.KafkaProblem: no Kafka address", "contracts.faults.ContractError: 2 faults", "ValueError: no key"],
)
def test_a_refused_submission_is_told_by_the_jobs_own_error(error: str) -> None:
    assert last_words(OUTPUT.format(error=error)) == f"`flink run` did not submit the job: {error}"


def test_a_refused_submission_without_an_error_of_ours_is_told_by_the_last_java_cause() -> None:
    said = last_words("org.x.JobException: no\nCaused by: java.io.IOException: one\nCaused by: org.y.Full: no slots")
    assert said == "`flink run` did not submit the job: org.y.Full: no slots"

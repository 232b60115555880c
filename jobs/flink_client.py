"""`flink run` without its shell script, and with the project's configuration and libraries."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs.errors import JobRefused
from jobs.stack import flink
from jobs.stack.component import Place
from jobs.stack.flink_java import client_command

# The client plans for a few seconds and ends: the optimising compiler and a parallel collector cost it twice the CPU.
QUICK = {"env.java.opts.client": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"}

# How soon a job that failed starts again is for whoever runs the cluster: what the client says would go before it.
RESTARTS = {
    "restart-strategy.type": "",
    "restart-strategy.exponential-delay.initial-backoff": "",
    "restart-strategy.exponential-delay.max-backoff": "",
    "restart-strategy.exponential-delay.backoff-multiplier": "",
    "restart-strategy.exponential-delay.reset-backoff-threshold": "",
    "restart-strategy.exponential-delay.jitter-factor": "",
}

SUBMIT_SECONDS = 180
_SUBMITTED = re.compile(r"JobID ([0-9a-f]{32})")
_PYTHON_ERROR = re.compile(r"(?:(?:[a-z_]\w*\.)+[A-Z]\w*|\w+(?:Error|Exception)): ")  # as a traceback ends


def submit_job(address: str, job: Path, arguments: Sequence[str], settings: Mapping[str, str] | None = None) -> str:
    """Submit a Python file, detached, to the cluster with this REST address (host:port), and give the job's id.

    `settings` are laid over the configuration for this job. Raises JobRefused with the client's words, and StackError
    where Java or the libraries are missing.
    """
    python = ["-pyexec", sys.executable, "-pyclientexec", sys.executable]
    own = [f"-D{name}={value}" for name, value in (settings or {}).items()]
    asked = ["run", "-d", "-m", address, *own, *python, "-py", str(job), *arguments]
    with tempfile.TemporaryDirectory(prefix="tidegate-client-") as folder:
        place = Place(Path(folder), ports={}, settings={})
        write_configuration(place)
        environment = {**os.environ, **flink.environment(place)}
        # Refused is an exception: the few classes of a client that planned nothing are no archive for others.
        with client_command(place.folder / "conf", place.log / "client.log", flink.libraries()) as command:
            return _submitted([*command, *asked], environment)


def write_configuration(place: Place) -> None:
    """Write conf/ of one call."""
    own = {"python.executable": sys.executable, "python.client.executable": sys.executable}
    flink.write_configuration(place, {**own, **QUICK, **RESTARTS})


def _submitted(command: Sequence[str], environment: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=SUBMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise JobRefused(
            f"`flink run` did not submit the job within {SUBMIT_SECONDS} s: is the cluster busy?"
        ) from None
    found = _SUBMITTED.search(done.stdout)
    if not found:
        raise JobRefused(last_words(done.stdout + "\n" + done.stderr))
    return found[1]


def last_words(output: str) -> str:
    """Give the sentence that explains a failed `flink run`: the job's own Python error, else the last Java cause."""
    said = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith(("\t", "    "))]
    python = [line for line in said if _PYTHON_ERROR.match(line)]
    java = [line for line in said if line.startswith("Caused by: ")]
    own = [line for line in python if not line.startswith(("java.", "org."))]
    found = own or java or python or said or ["no output"]
    return f"`flink run` did not submit the job: {found[-1].removeprefix('Caused by: ')}"

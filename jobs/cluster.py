"""A Flink cluster seen from outside, by its REST interface."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import httpx

from jobs.errors import ClusterUnreachable

STOP_SECONDS = 15.0  # a commit or a batch may take as long before the job is cancelled
FINISHED = frozenset({"FINISHED", "CANCELED", "FAILED"})


@dataclass(frozen=True)
class Cluster:
    """One session cluster, by the address (host:port) of its REST interface and dashboard."""

    address: str

    @property
    def dashboard(self) -> str:
        """The dashboard's URL."""
        return f"http://{self.address}"

    def overview(self) -> dict[str, Any]:
        """Give task managers and slots; raises ClusterUnreachable."""
        return self._get("/overview")

    def state(self, job_id: str) -> str | None:
        """Give the job's state, such as RUNNING; None when the cluster does not know the job."""
        answer = self._get_known(f"/jobs/{job_id}/status")
        return None if answer is None else str(answer["status"])

    def running(self, name: str) -> str | None:
        """Give the id of the running job with this name, if any."""
        for job in self._get("/jobs/overview")["jobs"]:
            if job["name"] == name and job["state"] not in FINISHED:
                return str(job["jid"])
        return None

    def why_failed(self, job_id: str) -> str | None:
        """Give the newest failure the cluster recorded for the job, in one line; None when it knows of none."""
        answer = self._get_known(f"/jobs/{job_id}/exceptions") or {}
        history = answer.get("exceptionHistory", {}).get("entries") or []
        trace = str(history[0].get("stacktrace", "")) if history else ""
        return root_cause(trace) if trace else None

    def cancel(self, job_id: str, timeout_seconds: float = 60.0) -> None:
        """End the job and wait until it has ended; harmless when it has ended already.

        It is stopped first, which lets every function finish its batch. A cancellation between is fatal now and then:
        Beam counts a batch twice ("Reference count must not be negative"), and Flink then ends the TaskManager.
        """
        if self.state(job_id) == "RUNNING" and self._stopped(job_id):
            return
        try:
            self._request("PATCH", f"/jobs/{job_id}", params={"mode": "cancel"})
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in (httpx.codes.NOT_FOUND, httpx.codes.CONFLICT):
                raise
        until = time.monotonic() + timeout_seconds
        while self.state(job_id) not in (None, *FINISHED):
            if time.monotonic() > until:
                raise ClusterUnreachable(f"job {job_id} did not end within {timeout_seconds:.0f} s of being cancelled")
            time.sleep(0.2)

    def _stopped(self, job_id: str) -> bool:
        """Stop the job with a savepoint, which nobody needs; False when that is not possible soon."""
        try:
            asked = self._request("POST", f"/jobs/{job_id}/stop", json={"drain": False}).json()["request-id"]
            until = time.monotonic() + STOP_SECONDS
            while time.monotonic() < until:
                done = self._get(f"/jobs/{job_id}/savepoints/{asked}").get("operation") or {}
                if "failure-cause" in done:
                    return False
                if self.state(job_id) in (None, *FINISHED):
                    if made := done.get("location"):
                        self._request("POST", "/savepoint-disposal", json={"savepoint-path": made})
                    return True
                time.sleep(0.2)
        except httpx.HTTPStatusError:
            pass  # no folder for savepoints, or a job that ended meanwhile
        return False

    def _get_known(self, path: str) -> dict[str, Any] | None:
        """Ask about a job; None when the cluster does not know it, as after a JobManager's death."""
        try:
            return self._get(path)
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND:
                return None
            raise

    def _get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._request("GET", path).json()
        return answer

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = httpx.request(method, f"http://{self.address}{path}", timeout=10.0, trust_env=False, **options)
        except httpx.TransportError as error:
            raise ClusterUnreachable(
                f"no Flink cluster answers at {self.address} ({type(error).__name__}): "
                "start one with `tidegate stack up kafka flink`, or give --cluster HOST:PORT"
            ) from error
        if response.is_server_error:  # a JobManager that is still starting
            raise ClusterUnreachable(
                f"the Flink cluster at {self.address} is not ready ({response.status_code}): wait, or look into its log"
            )
        response.raise_for_status()
        return response


def root_cause(trace: str) -> str:
    """Give the line of a Java stack trace that tells the cause: our Python error where there is one."""
    lines = [line.rstrip() for line in trace.splitlines() if line.strip()]
    # The first one stands at the end of the line with which Java tells of it.
    python = [n for n, line in enumerate(lines) if line.endswith("Traceback (most recent call last):")]
    if python:
        told = [line for line in lines[python[-1] + 1 :] if not line.startswith((" ", "\t"))]
        if told:
            return told[0]
    causes = [line for line in lines if line.startswith("Caused by: ")]
    return (causes[-1] if causes else lines[0]).removeprefix("Caused by: ")

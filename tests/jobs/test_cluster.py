"""What the outside learns of a cluster that has forgotten a job, as a JobManager does that was killed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from jobs.cluster import Cluster, root_cause
from jobs.errors import ClusterUnreachable
from jobs.watch import NEEDS_NEW_START


class Forgetful(BaseHTTPRequestHandler):
    """Answers every question with the server's one status code."""

    def do_GET(self) -> None:
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    do_PATCH = do_GET  # noqa: N815 (the name is the interface)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture(params=[404])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Forgetful)
    server.status = request.param  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Cluster(f"127.0.0.1:{server.server_address[1]}")
    server.shutdown()
    server.server_close()


def test_a_job_that_the_cluster_forgot_has_no_state_and_no_failure(cluster: Cluster) -> None:
    assert cluster.state("a" * 32) is None
    assert cluster.why_failed("a" * 32) is None
    cluster.cancel("a" * 32)


@pytest.mark.parametrize("cluster", [503], indirect=True)
def test_a_cluster_that_is_still_starting_counts_as_unreachable(cluster: Cluster) -> None:
    for question in (cluster.state, cluster.why_failed, cluster.running):
        with pytest.raises(ClusterUnreachable, match="not ready"):
            question("a" * 32)


FAILURE = """\
org.apache.flink.streaming.runtime.tasks.AsynchronousException: Caught exception while processing timer.
\tat org.apache.flink.streaming.runtime.tasks.StreamTask$StreamTaskAsyncExceptionHandler.handleAsyncException
Caused by: java.util.concurrent.ExecutionException: java.lang.RuntimeException: {told}
\tat java.base/java.util.concurrent.CompletableFuture.reportGet(CompletableFuture.java:396)
\t... 7 more
Caused by: java.lang.RuntimeException: {told}
\tat org.apache.beam.runners.fnexecution.control.FnApiControlClient$ResponseStreamObserver.onNext
\t... 1 more
"""
WORKER = """\
Error received from SDK harness for instruction 28: Traceback (most recent call last):
  File "sdk_worker.py", line 311, in _execute
    response = task()
               ^^^^^^
{error}
"""
AGAIN = """\

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "patience.py", line 30, in until_done
    return verb()
           ^^^^^^
{error}
"""
GAP = "lakehouse.errors.GapFound: stream payments: the tables hold everything up to offset 239564"


@pytest.mark.parametrize(
    "told", [WORKER.format(error=GAP), WORKER.format(error="KeyError: 3") + AGAIN.format(error=GAP)]
)
def test_a_failure_is_told_by_the_workers_own_error_whether_it_came_of_another_or_not(told: str) -> None:
    said = root_cause(FAILURE.format(told=told))
    assert said == GAP
    assert NEEDS_NEW_START.search(said)


def test_a_failure_without_python_is_told_by_the_last_java_cause() -> None:
    assert (
        root_cause("org.x.JobException: no\n\tat a.b\nCaused by: org.y.Full: no slots\n\tat c")
        == "org.y.Full: no slots"
    )
    assert root_cause("org.x.JobException: no\n\tat a.b") == "org.x.JobException: no"

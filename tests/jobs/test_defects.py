"""What counts as a fault that parks a stream, and what does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from jobs.defects import Defect, guarded

ENDING = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
from jobs.defects import guarded

pool = ThreadPoolExecutor(1)

def commit():
    time.sleep(0.5)  # the main thread is at its end by now
    try:
        guarded("stream clicks: the commit", lambda: pool.submit(print).result())
    except Exception as error:
        print(type(error).__name__)

"""
# While Python waits for a pool's threads, the main thread still counts as alive; for others it waits afterwards.
BEGINS = ("threading.Thread(target=commit).start()", "ThreadPoolExecutor(1).submit(commit)")


def _fail() -> None:
    raise ZeroDivisionError("a value of a record")


def test_what_nobody_foresaw_is_a_defect_told_without_values() -> None:
    with pytest.raises(Defect, match=r"ZeroDivisionError at test_defects\.py") as caught:
        guarded("stream clicks: the commit", _fail)
    assert "a value of a record" not in str(caught.value)


@pytest.mark.parametrize("begin", BEGINS)
def test_a_worker_that_is_ending_parks_no_stream(begin: str) -> None:
    done = subprocess.run([sys.executable, "-c", ENDING + begin], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "WorkerEnds"

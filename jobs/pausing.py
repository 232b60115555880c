"""Pause and resume one stream: both are the durable parking record, and a start from the Delta log."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from contracts.load import load_contracts
from jobs.credentials import lake_options
from jobs.errors import RunRefused, TidegateError
from jobs.launch import last_run, restart_if_running
from lakehouse.epochs import accept_restarts
from lakehouse.errors import NotBegun
from lakehouse.lake import Lake
from lakehouse.parking import Parking


def pause_stream(lake_uri: str, pipeline: str, stream: str, reason: str) -> None:
    """Park the stream: the running job drops its sections from the next batch on; its tables stay as they are.

    Raises TidegateError for a stream that the pipeline, as it was last run, does not have.
    """
    lake = Lake.open(lake_uri, lake_options())
    entry = last_run(lake, pipeline)
    if entry is None:
        raise TidegateError(f"no pipeline {pipeline} was ever run in {lake.uri}: check --lake and --name")
    if stream not in entry["streams"]:
        raise TidegateError(f"pipeline {pipeline} has no stream {stream}: it has {', '.join(sorted(entry['streams']))}")
    Parking(lake, pipeline).park(stream, reason)


def resume_stream(lake_uri: str, pipeline: str, stream: str, cluster: str | None) -> str | None:
    """Remove the stream's parking record and submit the pipeline's job again from the Delta log.

    Gives the new job's id, or None when the pipeline does not run. Raises TidegateError when nothing is parked, and
    when the start is refused: the stream then stays parked, and the job runs on without it.
    """
    lake = Lake.open(lake_uri, lake_options())
    parking = Parking(lake, pipeline)
    parked = parking.read(stream)
    if parked is None:
        raise TidegateError(f"{stream} is not paused or parked in pipeline {pipeline}: see `tidegate status`")
    _accept(lake, pipeline, stream)
    parking.unpark(stream)
    try:
        return restart_if_running(lake, pipeline, cluster)
    except RunRefused as error:
        parking.park(stream, parked.reason)
        raise RunRefused(f"{stream} stays parked. To decide, stop the job and start it yourself; {error}") from None


def _accept(lake: Lake, pipeline: str, stream: str) -> None:
    """Let positions of the source that were seen to begin again be right as they are."""
    entry = last_run(lake, pipeline)
    for contract in load_contracts(Path(entry["request"]["contracts"]), dict(os.environ)) if entry else ():
        if contract.stream == stream:
            with suppress(NotBegun):
                accept_restarts(lake, contract, pipeline)

"""The tail of a table's log: the state that our newest commit says, and whether the log is still the one we knew."""

from __future__ import annotations

from typing import Any

import orjson

from lakehouse.anchor import METADATA_KEY, AnchorState
from lakehouse.errors import FatalError, OtherPipeline, RestoredTable, StateMissing, TableVanished, TableWentBack
from lakehouse.lake import Lake


class LogTail:
    """Reads the newest commits of one table's log, and remembers what they say for that very version."""

    def __init__(self, lake: Lake, table: str, pipeline: str) -> None:
        self._lake = lake
        self._name = table
        self._pipeline = pipeline
        self._version = -1
        self._state: AnchorState | None = None

    def holds(self, version: int) -> bool:
        """Say whether the log has a commit of that version."""
        return self._lake.exists(self._path(version))

    def state(self, version: int) -> AnchorState | None:
        """Give what the newest commit of our pipeline says, at a version; None in a table never filled.

        Raises RestoredTable when RESTORE was run since, OtherPipeline when another pipeline fills the table, and
        StateMissing when the log was cut off before such a commit.
        """
        if self._version != version:
            self._state = self._read(version)
            self._version = version
        return self._state

    def wrote(self, version: int, state: AnchorState) -> None:
        """Say what our own commit of a version holds."""
        self._version, self._state = version, state

    def committed_ms(self, version: int) -> int | None:
        """Give when a version was committed, as its writer's clock said (ms); None when the log no longer says it."""
        log = self._lake.get(self._path(version))
        timestamp = commit_info(log).get("timestamp") if log else None
        return None if timestamp is None else int(timestamp)

    def has_made(self, commit: str, base: int, newest: int) -> bool:
        """Say whether a commit of ours (AnchorState.commit) is among those after a version."""
        for version in range(newest, base, -1):
            log = self._lake.get(self._path(version))
            said = commit_info(log).get(METADATA_KEY) if log else None
            if said is not None and AnchorState.from_json(said).commit == commit:
                return True
        return False

    def gone_back(self, before: int, now: int | None) -> FatalError:
        """Give the error for a table that was at a version before and is at a lower one, or gone (None), now."""
        if now is None:
            return TableVanished(
                f"table {self._name} is gone, it was at version {before}. Bring it back, or move the stream's "
                "other tables away as well to build the stream again."
            )
        return TableWentBack(
            f"table {self._name} is at version {now}, it was at version {before}: an older copy was "
            "put in its place. Bring the newer one back, or move the stream's tables away to build the stream again."
        )

    def _path(self, version: int) -> str:
        return f"{self._name}/_delta_log/{version:020}.json"

    def _read(self, newest: int) -> AnchorState | None:
        # Normally one read; more only past commits of others (optimize, vacuum, changed columns).
        for version in range(newest, -1, -1):
            log = self._lake.get(self._path(version))
            if log is None:
                raise StateMissing(
                    f"table {self._name}: no commit of pipeline {self._pipeline} from version {version + 1} on, "
                    "and older log entries are gone. Move the stream's tables away to build the stream again."
                )
            info = commit_info(log)
            if info.get("operation") == "RESTORE":
                raise RestoredTable(
                    f"table {self._name}: RESTORE was run (version {version}): rows went back, but progress did not, "
                    "so records would be missing. Move the stream's tables away to build the stream again from Kafka."
                )
            if METADATA_KEY in info:
                return self._own(AnchorState.from_json(info[METADATA_KEY]))
        return None

    def _own(self, state: AnchorState) -> AnchorState:
        if state.pipeline != self._pipeline:
            raise OtherPipeline(
                f"table {self._name} is filled by pipeline {state.pipeline}, not by {self._pipeline}: its records "
                f"would be written a second time. Use --name {state.pipeline}, or another lake."
            )
        return state


def commit_info(log: bytes) -> dict[str, Any]:
    """Give the commitInfo of a commit's bytes; empty when it has none."""
    for line in log.splitlines():
        if line.startswith(b'{"commitInfo"'):
            info: dict[str, Any] = orjson.loads(line)["commitInfo"]
            return info
    return {}

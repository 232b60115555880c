"""A commit is put once: what a put came to is read back from the log when its answer does not say it."""

from __future__ import annotations

from collections.abc import Sequence

from obstore.exceptions import BaseError

from lakehouse.lake import Lake
from lakehouse.merge.log import Action, DeltaLog


def put_once(lake: Lake, log: DeltaLog, version: int, actions: Sequence[Action]) -> bool:
    """Put a commit, whose commitInfo comes first; False when the version is another writer's.

    Raises what lakehouse.errors says of the storage, when the commit is not seen in the log.
    """
    try:
        if log.put_commit(version, actions):
            return True
    except (BaseError, OSError) as error:
        if _landed(log, version, actions):
            return True
        raise lake.explain(f"commit to table {log.table}", error) from error
    return _landed(log, version, actions)  # a put that the client repeated meets its own first try


def _landed(log: DeltaLog, version: int, actions: Sequence[Action]) -> bool:
    own = actions[0]["commitInfo"]["txnId"]
    return any(action.get("commitInfo", {}).get("txnId") == own for action in log.read(version) or ())

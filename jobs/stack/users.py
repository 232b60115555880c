"""Run what refuses to be root as somebody else; as anybody but root nothing changes."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from jobs.stack.errors import StackError

SOMEBODY = "nobody"


def other_than_root(*paths: Path) -> tuple[str, ...]:
    """Give what stands before a command so that it runs as `nobody` where we are root; empty where we are not.

    A path below a folder that only root may enter (/root, a test's own folder) is reached by one capability more.
    Raises StackError where that user or setpriv is missing.
    """
    if os.geteuid() != 0:
        return ()
    somebody, program = _somebody(), shutil.which("setpriv")
    if program is None:
        raise StackError("setpriv is missing: install util-linux, or work as another user than root")
    prefix = [program, f"--reuid={somebody.pw_uid}", f"--regid={somebody.pw_gid}", "--clear-groups"]
    if not all(_reachable(path) for path in paths):
        prefix += ["--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"]
    return (*prefix, "--")


def give_away(*folders: Path) -> None:
    """Make a folder, owned by whom other_than_root runs as, and closed to all others."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.geteuid() == 0:
            os.chown(folder, _somebody().pw_uid, _somebody().pw_gid)


def _somebody() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(SOMEBODY)
    except KeyError as error:
        raise StackError(f"there is no user {SOMEBODY}: add one, or work as another user than root") from error


def _reachable(path: Path) -> bool:
    folders: Sequence[Path] = path.absolute().parents
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in folders if folder.exists())

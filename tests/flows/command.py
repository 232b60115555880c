"""The `tidegate` command as a user runs it, for tests in which its words and exit code are the point."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

COMMAND = str(Path(sys.executable).parent / "tidegate")


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    words: str  # both outputs, white space as single blanks
    seconds: float
    out: str = ""  # standard output alone, as it was


def tidegate(*arguments: str, environment: Mapping[str, str] | None = None, at_most_seconds: float = 120) -> Said:
    """Run the command to its end; whatever it says, it must never show a traceback."""
    begun = time.monotonic()
    done = subprocess.run(
        [COMMAND, *arguments],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=at_most_seconds,
    )
    words = " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in words, words
    return Said(done.returncode, words, time.monotonic() - begun, done.stdout)

"""How far long work is, as a bar on standard error."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bar:
    """One bar that counts records or offsets, shown meanwhile."""

    def __init__(self, console: Console, what: str, total: int) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._bars = Progress(*columns, console=console)
        self._task = self._bars.add_task(what, total=total)

    def __enter__(self) -> Bar:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def advance(self, count: int) -> None:
        """Say that so many more are done."""
        self._bars.advance(self._task, count)

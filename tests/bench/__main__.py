"""`python -m tests.bench`: measure, print, and rewrite docs/benchmarks.md."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from jobs.stack import Stack
from jobs.stack.jars import PROJECT
from tests.bench.benchmarks import BENCHMARKS, Bench
from tests.bench.report import DOCUMENT, write

HOME = PROJECT / ".tidegate" / "bench"
QUICK_RECORDS = 500_000


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(BENCHMARKS)} (repeatable).")] = None,
    records: Annotated[int, typer.Option(help="Records of each throughput run.", min=100_000)] = 8_000_000,
    quick: Annotated[bool, typer.Option("--quick", help="Few records: to see that it works, not how fast.")] = False,
    long: Annotated[bool, typer.Option("--long", help="Also what takes ten minutes.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave docs/benchmarks.md as it is.")] = False,
    document: Annotated[Path, typer.Option(help="The page to rewrite.")] = DOCUMENT,
) -> None:
    """Measure rates, ratios, latency and memory on real Kafka, Flink and Delta."""
    names = only or [name for name, (_, _, slow) in BENCHMARKS.items() if long or not slow]
    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        raise typer.BadParameter(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    console = Console()
    _clear()
    bench = Bench(HOME, QUICK_RECORDS if quick else records, quick)
    try:
        _run(console, bench, [n for n in names if not BENCHMARKS[n][1]], None if keep else document)
        if any(BENCHMARKS[n][1] for n in names):
            with bench.stack():
                _run(console, bench, [n for n in names if BENCHMARKS[n][1]], None if keep else document)
    finally:
        shutil.rmtree(HOME, ignore_errors=True)


def _clear() -> None:
    """Begin from nothing: stop what an interrupted run left, and remove it."""
    for home in (HOME / "isolation", HOME):
        if (home / "state.json").exists():
            Stack(home).down()
    shutil.rmtree(HOME, ignore_errors=True)


def _run(console: Console, bench: Bench, names: list[str], document: Path | None) -> None:
    for name in names:
        console.print(f"[bold]{name}[/] ...", highlight=False)
        section = BENCHMARKS[name][0](bench)
        section.show(console)
        if document is not None:
            write(section, document)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()

"""`python -m tests.bench`: measure, print, and rewrite docs/benchmarks.md."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from jobs.stack import Stack
from jobs.stack.jars import PROJECT
from tests.bench.bench import MINUTES, Bench
from tests.bench.benchmarks import BENCHMARKS
from tests.bench.report import DOCUMENT, write

HOME = PROJECT / ".tidegate" / "bench"
QUICK_RECORDS = 500_000
WIDE = 180  # columns, where the output goes to a file


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(BENCHMARKS)} (repeatable).")] = None,
    records: Annotated[int, typer.Option(help="Records of each throughput run.", min=100_000)] = 8_000_000,
    quick: Annotated[bool, typer.Option("--quick", help="Few records: to see that it works, not how fast.")] = False,
    long: Annotated[bool, typer.Option("--long", help="Also what takes ten minutes.")] = False,
    minutes: Annotated[float, typer.Option(help="Minutes of the sustained run.", min=0.5)] = MINUTES,
    keep: Annotated[bool, typer.Option("--keep", help="Leave docs/benchmarks.md as it is.")] = False,
    document: Annotated[Path, typer.Option(help="The page to rewrite.")] = DOCUMENT,
) -> None:
    """Measure rates, ratios, latency and memory on real Kafka, Flink and Delta."""
    names = only or [name for name, (_, _, slow) in BENCHMARKS.items() if long or not slow]
    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        raise typer.BadParameter(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    console, begun = Console(), time.monotonic()
    if not console.is_terminal:
        console.width = WIDE

    def say(text: str) -> None:
        console.print(f"[dim]{(time.monotonic() - begun) / 60:5.1f} min  {text}[/]", highlight=False)

    _clear()
    bench = Bench(HOME, QUICK_RECORDS if quick else records, quick, minutes, say)
    failed: list[str] = []
    page = None if keep else document
    try:
        failed += _run(console, bench, [n for n in names if not BENCHMARKS[n][1]], page)
        if any(BENCHMARKS[n][1] for n in names):
            with bench.stack():
                failed += _run(console, bench, [n for n in names if BENCHMARKS[n][1]], page)
    finally:
        shutil.rmtree(HOME, ignore_errors=True)
    if failed:
        console.print(f"[red]failed: {', '.join(failed)}[/]")
        raise typer.Exit(1)


def _clear() -> None:
    """Begin from nothing: stop what an interrupted run left, and remove it."""
    for home in (HOME / "isolation", HOME):
        if (home / "state.json").exists():
            Stack(home).down()
    shutil.rmtree(HOME, ignore_errors=True)


def _run(console: Console, bench: Bench, names: list[str], document: Path | None) -> list[str]:
    """Run benchmarks, and give those that failed: the others are worth having."""
    failed = []
    for name in names:
        bench.say(f"{name} ...")
        try:
            section = BENCHMARKS[name][0](bench)
        except Exception:  # noqa: BLE001 (shown, and told by the exit code)
            console.print_exception()
            failed.append(name)
            continue
        section.show(console)
        if document is not None:
            write(section, document)
    return failed


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()

"""The command line of the chaos tool; `make chaos` calls it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from jobs.stack import Stack
from jobs.stack.jars import PROJECT
from tests.chaos.arena import Place
from tests.chaos.faults import FAULTS
from tests.chaos.run import Outcome, run
from tests.chaos.writing import WRITERS

RECORDS_PER_MINUTE = 1_000_000


def main(
    seed: Annotated[int, typer.Option(help="Decides the schedule and the records.")] = 1,
    minutes: Annotated[float, typer.Option(help="How long to do harm, at least.", min=0.1)] = 20.0,
    records: Annotated[
        int | None, typer.Option(help="How many records, at least; default: a million a minute.")
    ] = None,
    lake: Annotated[str | None, typer.Option(help="Where the tables lie: local or s3; default: by the seed.")] = None,
    encoding: Annotated[str | None, typer.Option(help=f"{', '.join(WRITERS)}; default: by the seed.")] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"Only these faults: {', '.join(FAULTS)}.")] = None,
) -> None:
    """Kill everything by a seeded schedule while records flow, then prove that each is in the tables exactly once."""
    console = Console()
    place = Place(lake or Place.of(seed).lake, encoding or Place.of(seed).encoding)
    if place.lake not in ("local", "s3") or place.encoding not in WRITERS or set(only or ()) - set(FAULTS):
        words = f"--encoding one of {', '.join(WRITERS)}, --only one of {', '.join(FAULTS)}"
        raise typer.BadParameter(f"--lake is local or s3, {words}")
    home = PROJECT / ".tidegate" / "chaos" / f"seed-{seed}"
    _clear(home)
    wanted = records or int(minutes * RECORDS_PER_MINUTE)
    try:
        outcome = run(console, home, seed=seed, minutes=minutes, records=wanted, place=place, only=tuple(only or ()))
    except Exception as error:
        told = "\n".join([f"FAILED: {type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
        console.print(told, style="bold red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started is stopped")
        raise typer.Exit(130) from None
    _show(console, outcome)


def _clear(home: Path) -> None:
    """Stop what an earlier run with this seed may have left running, and remove what it wrote."""
    if (home / "state.json").exists():
        Stack(home).down()
    shutil.rmtree(home, ignore_errors=True)


def _show(console: Console, outcome: Outcome) -> None:
    table = Table(
        "what", "how many", title=f"Exactly once, after {outcome.seconds:.0f} s under fire", title_justify="left"
    )
    for name, count in sorted(outcome.found.items()):
        table.add_row(f"records: {name}", f"{count:,}")
    for name, count in outcome.faults.items():
        table.add_row(f"faults: {name}", str(count))
    table.add_row("job submitted again by the supervisor", str(outcome.resubmitted))
    console.print(table)


if __name__ == "__main__":
    typer.run(main)

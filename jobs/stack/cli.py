"""`tidegate stack`: start, stop and inspect the local components."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from jobs.stack.capture import capture as register
from jobs.stack.components import COMPONENTS
from jobs.stack.stack import DEFAULT_COMPONENTS, DEFAULT_HOME, Stack

NOT_HEALTHY = 1

app = typer.Typer(no_args_is_help=True)
out = Console()

_CHOICE = ", ".join(COMPONENTS)
Home = Annotated[Path, typer.Option(help="The stack's folder: configuration, data, logs, state.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Names = Annotated[list[str] | None, typer.Argument(help=f"Any of: {_CHOICE}.", show_default=False)]


@app.command(epilog="Example: tidegate stack up kafka flink s3")
def up(components: Names = None, home: Home = DEFAULT_HOME, as_json: Json = False) -> None:
    """Start components (default: kafka flink) and wait until they are healthy; what runs already is left alone."""
    stack = Stack(home, components or DEFAULT_COMPONENTS)
    started = stack.up()
    if not as_json:
        out.print(f"started {', '.join(started)}" if started else "all of it was running already", highlight=False)
    _show(stack, as_json)


@app.command(epilog="Example: tidegate stack down")
def down(components: Names = None, home: Home = DEFAULT_HOME, as_json: Json = False) -> None:
    """Stop components (default: all that this stack has started), with their workers."""
    stopped = Stack(home).down(components or None)
    if as_json:
        out.print_json(json.dumps(stopped))
    else:
        out.print(f"stopped {', '.join(stopped)}" if stopped else "nothing was running", highlight=False)


@app.command(epilog="Example: tidegate stack capture users orders --encoding avro")
def capture(
    tables: Annotated[list[str], typer.Argument(help="Tables of the stack's database, such as users or sales.orders.")],
    encoding: Annotated[str, typer.Option(help="One of: json, json-schema, avro (needs the registry).")] = "json",
    prefix: Annotated[str, typer.Option(help="Topics are named <prefix>.<schema>.<table>.")] = "cdc",
    home: Home = DEFAULT_HOME,
) -> None:
    """Let Debezium capture tables of the stack's PostgreSQL; asked again with the same prefix it changes which."""
    name = register(Stack(home), tables, encoding=encoding, prefix=prefix)
    out.print(f"the connector {name} runs; topics {prefix}.*", highlight=False)


@app.command(epilog="Example: tidegate stack status --json")
def status(home: Home = DEFAULT_HOME, as_json: Json = False) -> None:
    """Tell how each process is; the exit code is 1 when one that was started is not healthy."""
    stack = Stack(home)
    _show(stack, as_json)
    if not all(process.healthy for process in stack.status()):
        raise typer.Exit(NOT_HEALTHY)


def _show(stack: Stack, as_json: bool) -> None:
    found = stack.status()
    if as_json:
        out.print_json(json.dumps([dataclasses.asdict(process) for process in found]))
        return
    table = Table("component", "process", "state", title=str(stack.home), title_justify="left")
    table.add_column("address", overflow="fold", min_width=len("127.0.0.1:12345"))
    table.add_column("pid")
    table.add_column("log", overflow="fold")
    for p in found:
        state = "[green]healthy[/]" if p.healthy else f"[red]{p.missing}[/]"
        table.add_row(p.component, p.process, state, p.address, str(p.pid or "-"), str(Path(p.log)))
    out.print(table if found else f"nothing has been started in {stack.home}")

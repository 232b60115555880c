"""The `tidegate` command: each command reads its options, calls one verb and shows what it gave."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from contracts.durations import parse_duration
from contracts.faults import ContractError
from jobs.errors import TidegateError
from jobs.settings import VERSION
from lakehouse.errors import LakehouseError

OK, PROBLEM, USAGE, INTERRUPTED = 0, 1, 2, 130
LAKE_VARIABLE, KAFKA_VARIABLE, CLUSTER_VARIABLE = "TIDEGATE_LAKE", "TIDEGATE_KAFKA", "TIDEGATE_CLUSTER"
SOURCE_VARIABLE = "TIDEGATE_SOURCE"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
contract_app = typer.Typer(no_args_is_help=True, help="Work with stream contracts.")
app.add_typer(contract_app, name="contract")
# A pipe or a log file is no terminal of 80 columns.
WIDTH = None if sys.stdout.isatty() else 160
out, err = Console(width=WIDTH), Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
LakeUri = Annotated[
    str, typer.Option("--lake", envvar=LAKE_VARIABLE, help="Folder or s3://bucket/prefix of the tables.")
]
Kafka = Annotated[str, typer.Option("--kafka", envvar=KAFKA_VARIABLE, help="Kafka's HOST:PORT.")]
KafkaConfig = Annotated[
    Path | None, typer.Option("--kafka-config", help="Kafka client properties (SASL, TLS); secrets stay in this file.")
]
Contracts = Annotated[Path, typer.Option("--contracts", help="Folder with one contract file per stream.")]
ClusterAt = Annotated[str, typer.Option("--cluster", envvar=CLUSTER_VARIABLE, help="Flink's HOST:PORT.")]
LastCluster = Annotated[
    str | None, typer.Option("--cluster", envvar=CLUSTER_VARIABLE, help="Flink's HOST:PORT; else as last run.")
]
Pipeline = Annotated[str, typer.Option("--name", help="The pipeline's name; progress is kept under it.")]
Keys = Annotated[Path | None, typer.Option("--keys", help="Mask key file; else $TIDEGATE_KEYS, TIDEGATE_KEY_<ID>.")]


def _version(value: bool) -> None:
    if value:
        out.print(f"tidegate {VERSION}", highlight=False)
        raise typer.Exit(OK)


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Trustworthy Delta Lake tables from Kafka change data, on Apache Flink."""


@app.command(epilog="Example: tidegate demo --keep")
def demo(
    lake: Annotated[str | None, typer.Option(help="Where the tables go; a local folder by default.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave Kafka and Flink running afterwards.")] = False,
    home: Annotated[Path, typer.Option(help="Folder for logs, state and the local tables.")] = Path(".tidegate/demo"),
    live: Annotated[
        bool, typer.Option("--live", help="With a real PostgreSQL that changes while you watch, compared at the end.")
    ] = False,
    seconds: Annotated[float, typer.Option(help="How long the database changes, with --live.", min=5)] = 60,
) -> None:
    """Run the main job on real Kafka and Flink with a sample of real change data, and show what came of it."""
    from jobs.demo import run_demo
    from jobs.demo_live import run_live

    if live:
        raise typer.Exit(OK if run_live(out, home=home, lake=lake, seconds=seconds) else PROBLEM)
    run_demo(out, home=home, lake=lake, keep=keep)


@app.command(
    epilog="Example: tidegate run --contracts contracts/shop --kafka 127.0.0.1:9092 --lake ./lake --until-caught-up"
)
def run(
    contracts: Contracts,
    kafka: Kafka,
    lake: LakeUri,
    cluster: ClusterAt = "127.0.0.1:8081",
    kafka_config: KafkaConfig = None,
    keys: Keys = None,
    name: Pipeline = "main",
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="Stop when every partition has reached the end seen at the start.")
    ] = False,
    supervise: Annotated[
        bool,
        typer.Option("--supervise", help="Stay, and submit again from the Delta log what does not go on by itself."),
    ] = False,
    new_epoch: Annotated[
        list[str] | None,
        typer.Option(
            "--new-epoch", help="Go on with a topic that was recreated, or whose source was restored (repeatable)."
        ),
    ] = None,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go on although Kafka has deleted records that were not read yet.")
    ] = False,
    commit_seconds: Annotated[int, typer.Option(help="Commit interval in seconds.", min=1, max=3600)] = 5,
    as_json: Json = False,
) -> None:
    """Submit the ingest job; it goes on from what the tables hold.

    Exit code 0: submitted, and where asked caught up; 1: refused, or caught up but for streams that are parked.
    """
    from jobs.launch import Launch, Request
    from jobs.watch import follow

    request = Request(
        contracts=contracts, kafka=kafka, lake=lake, cluster=cluster, kafka_config=kafka_config, keys=keys,
        pipeline=name, new_epochs=tuple(new_epoch or ()), accept_loss=accept_loss, commit_seconds=commit_seconds,
    )  # fmt: skip
    launch = Launch(request, lambda said: err.print(escape(said), highlight=False, soft_wrap=True))
    job_id = launch.submit()
    if not as_json:
        out.print(f"job {job_id} runs; dashboard {launch.cluster.dashboard}/#/job/running/{job_id}", highlight=False)
    summary: dict[str, Any] = {"job": job_id, "dashboard": launch.cluster.dashboard}
    if until_caught_up or supervise:
        summary |= follow(launch, job_id, err, until_caught_up=until_caught_up, supervise=supervise)
    if as_json:
        print(json.dumps(summary))
    if summary.get("parked"):
        raise typer.Exit(PROBLEM)


@app.command(epilog="Example: tidegate status --lake ./lake --kafka 127.0.0.1:9092")
def status(
    lake: LakeUri,
    contracts: Contracts,
    kafka: Annotated[
        str | None, typer.Option("--kafka", envvar=KAFKA_VARIABLE, help="Kafka's HOST:PORT; for the lag.")
    ] = None,
    cluster: LastCluster = None,
    kafka_config: KafkaConfig = None,
    name: Pipeline = "main",
    as_json: Json = False,
) -> None:
    """Show per stream whether it runs, is behind or parked, how fresh it is, and what is committed.

    Exit code 0: all streams run or are level; 1: one is parked or red, or the job does not run.
    """
    from jobs.status import read_status, show_status

    found = read_status(contracts, lake, name, kafka=kafka, cluster=cluster, kafka_config=kafka_config)
    if as_json:
        print(json.dumps(found.as_dict(), default=str))
    else:
        show_status(found, out)
    raise typer.Exit(OK if found.healthy else PROBLEM)


@app.command(
    epilog="Example: tidegate canary --stream orders --contracts contracts/shop --kafka 127.0.0.1:9092 --lake ./lake"
)
def canary(
    contracts: Contracts,
    kafka: Kafka,
    lake: LakeUri,
    stream: Annotated[
        list[str] | None, typer.Option("--stream", help="This stream alone (repeatable); else all.")
    ] = None,
    name: Pipeline = "main",
    kafka_config: KafkaConfig = None,
    cluster: LastCluster = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for it.", min=1)] = 60,
    yes: Annotated[bool, typer.Option("--yes", help="Write into the source topic without asking.")] = False,
    as_json: Json = False,
) -> None:
    """Write one marked record into a stream's topic, and time its way until a reader of the tables sees it.

    Other consumers of the topic get the record too. Exit code 0: seen; 1: not in time, and where it stuck.
    """
    from jobs.canary import Asked, fly, show_flights

    def allowed(statement: str) -> bool:
        err.print(escape(statement), highlight=False, soft_wrap=True)
        return yes or (sys.stdin.isatty() and typer.confirm("Write it?", err=True))

    asked = Asked(contracts, kafka, lake, name, kafka_config, cluster, tuple(stream or ()), timeout)
    flights = fly(asked, allowed)
    if as_json:
        print(json.dumps([flight.as_dict() for flight in flights]))
    else:
        show_flights(flights, out)
    for failure in (flight.failure for flight in flights if flight.failure):
        err.print(f"[bold red]tidegate:[/] {escape(failure)}", highlight=False, soft_wrap=True)
    raise typer.Exit(PROBLEM if any(flight.failure for flight in flights) else OK)


@app.command(epilog="Example: tidegate maintain --contracts contracts/shop --lake ./lake --every 10m")
def maintain(
    contracts: Contracts,
    lake: LakeUri,
    name: Pipeline = "main",
    stream: Annotated[
        list[str] | None, typer.Option("--stream", help="This stream's tables alone (repeatable); else all.")
    ] = None,
    every: Annotated[str | None, typer.Option(help="Go on until Ctrl-C, once in this time, such as 10m.")] = None,
    retention: Annotated[
        str, typer.Option(help="How long what was replaced stays readable, such as 7d; at least 1h.")
    ] = "7d",
    cluster: LastCluster = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Delete what no retained version needs, shorten logs, and merge small files where no writer is at work.

    Safe at any time, beside the running job and beside readers. Exit code 0: done; 1: something failed, and what.
    """
    from jobs.maintain import Asked, Round, maintain_every, orders_of, show_round
    from jobs.maintain import maintain as maintain_once

    seconds = parse_duration(every) / 1000 if every else None
    orders = orders_of(retention, dry_run=dry_run)
    asked = Asked(contracts, lake, name, tuple(stream or ()), cluster, orders)

    def show(done: Round) -> None:
        if as_json:
            print(json.dumps(done.as_dict(), default=str), flush=True)
        else:
            show_round(done, out)

    if seconds is not None:
        maintain_every(seconds, asked, err, show)
        return
    done = maintain_once(asked, err)
    show(done)
    raise typer.Exit(PROBLEM if done.told else OK)


@app.command(epilog="Example: tidegate verify --stream users --source postgresql://reader@db/shop --wait 60")
def verify(
    stream: Annotated[str, typer.Option("--stream", help="Which stream's current table.")],
    source: Annotated[
        str,
        typer.Option("--source", envvar=SOURCE_VARIABLE, help="The database's URL; its password may be in PGPASSWORD."),
    ],
    lake: LakeUri,
    contracts: Contracts,
    keys: Keys = None,
    table: Annotated[
        list[str] | None,
        typer.Option("--table", help="SCHEMA.TABLE of the source; else as the topics say (repeatable)."),
    ] = None,
    first: Annotated[int, typer.Option(help="How many keys that differ, and how many that wait, to list.", min=0)] = 20,
    wait: Annotated[float, typer.Option(help="Seconds to go on comparing while they differ.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Compare a stream's current table with the table it came from: counts, keys, checksums of every column.

    Exit code 0: equal, apart from keys that wait; 1: different; 2: they could not be compared.
    """
    from jobs.verify import verify as compare
    from jobs.verify_report import as_dict, show_verification

    try:
        found = compare(
            stream, contracts, lake, source, keys=keys, tables=tuple(table or ()), first=first, wait_seconds=wait
        )
    except (TidegateError, LakehouseError, ContractError, ValueError, OSError) as error:
        err.print(escape(str(error)), highlight=False, soft_wrap=True)
        raise typer.Exit(USAGE) from None
    if as_json:
        print(json.dumps(as_dict(found), default=str))
    else:
        show_verification(found, out)
    raise typer.Exit(OK if found.comparison.equal else PROBLEM)


@app.command(epilog="Example: tidegate migrate --stream orders --contracts contracts/shop --lake ./lake --dry-run")
def migrate(
    stream: Annotated[str, typer.Option("--stream", help="Whose tables.")],
    lake: LakeUri,
    contracts: Contracts,
    name: Pipeline = "main",
    keys: Keys = None,
    cluster: LastCluster = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and whether a value would be lost.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Rewrite a stream's tables to what its contract now wants: column types, partitioning, storage.

    Each table is changed by one commit, and earlier versions stay readable. Stopped or killed, call it again.
    """
    from jobs.migrate import migrate_stream, show_migration

    done = migrate_stream(stream, contracts, lake, name, keys=keys, cluster=cluster, dry_run=dry_run, console=err)
    if as_json:
        print(json.dumps(done))
    else:
        show_migration(done, stream, out, dry_run=dry_run)


@app.command(epilog="Example: tidegate pause orders --lake ./lake")
def pause(
    stream: str,
    lake: LakeUri,
    name: Pipeline = "main",
    reason: Annotated[str, typer.Option(help="Kept with the pause, shown by status.")] = "paused by hand",
) -> None:
    """Stop one stream; the others go on. Nothing is lost: `resume` reads on from the tables."""
    from jobs.pausing import pause_stream

    pause_stream(lake, name, stream, reason)
    out.print(f"{stream} is paused; go on with `tidegate resume {stream} --lake {lake}`", highlight=False)


@app.command(epilog="Example: tidegate resume orders --lake ./lake")
def resume(
    stream: str,
    lake: LakeUri,
    name: Pipeline = "main",
    cluster: LastCluster = None,
) -> None:
    """Let a paused or parked stream go on: the running job is submitted again from the Delta log."""
    from jobs.pausing import resume_stream

    job_id = resume_stream(lake, name, stream, cluster)
    if job_id is None:
        out.print(f"{stream} goes on at the next `tidegate run`", highlight=False)
    else:
        out.print(f"{stream} goes on in job {job_id}", highlight=False)


@app.command(epilog='Example: tidegate query "SELECT count(*) FROM orders_changes" --lake ./lake')
def query(sql: str, lake: LakeUri, as_json: Json = False) -> None:
    """Run SQL (DuckDB) with every table of the lake as a view; S3 secrets come from the environment."""
    from jobs.query import run_query, show_result

    names, rows = run_query(sql, lake)
    if as_json:
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], default=str))
    else:
        show_result(names, rows, out)


@app.command(epilog="Example: tidegate load sample.jsonl.gz --kafka 127.0.0.1:9092")
def load(files: list[Path], kafka: Kafka, kafka_config: KafkaConfig = None, as_json: Json = False) -> None:
    """Load messages (JSON lines: topic, partition, key_b64, value_b64, headers) into Kafka, as they were."""
    from jobs.kafka.client import KafkaClient
    from jobs.kafka.load import load_files

    client = KafkaClient.from_file(kafka_config, kafka)
    counts = load_files(files, client, console=err)
    if as_json:
        print(json.dumps(counts))
    else:
        out.print(f"loaded {sum(counts.values()):,} messages into {len(counts)} topics", highlight=False)


@contract_app.command("check", epilog="Example: tidegate contract check contracts/shop")
def contract_check(directory: Path, as_json: Json = False) -> None:
    """Check the contracts of a folder without running anything; all faults are shown together."""
    from contracts.load import load_contracts

    try:
        contracts = load_contracts(directory, dict(os.environ))
    except ContractError as error:
        if not as_json:
            raise
        print(json.dumps([dataclasses.asdict(fault) for fault in error.faults]))
        raise typer.Exit(PROBLEM) from None
    if as_json:
        print("[]")
    else:
        out.print(f"{len(contracts)} contracts are sound: {', '.join(c.stream for c in contracts)}", highlight=False)


def _guarded(command: Callable[[], None]) -> int:
    """Run the command; an error a user can act on becomes a sentence on standard error and an exit code."""
    try:
        command()
    except (TidegateError, LakehouseError, ContractError, OSError, ValueError) as error:
        err.print(f"[bold red]tidegate:[/] {escape(str(error))}", markup=True, highlight=False, soft_wrap=True)
        return PROBLEM
    except (KeyboardInterrupt, RuntimeError) as error:
        # DuckDB answers Ctrl-C with an error of its own, caused by the interruption.
        if isinstance(error, RuntimeError) and not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        err.print("tidegate: interrupted; what was committed stays committed", highlight=False)
        return INTERRUPTED
    return OK


def main() -> None:
    """Entry point of the `tidegate` command."""
    from jobs.replay_cli import add_commands
    from jobs.stack.cli import app as stack_app

    add_commands(app)
    app.add_typer(stack_app, name="stack", help="Start, stop and inspect the local components.")
    raise SystemExit(_guarded(app))

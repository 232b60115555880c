"""The commands that go over records again: `tidegate quarantine ...`, `tidegate replay`, `tidegate diff`."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from jobs.cli import (
    KAFKA_VARIABLE,
    OK,
    PROBLEM,
    Contracts,
    Json,
    KafkaConfig,
    Keys,
    LakeUri,
    Pipeline,
    err,
    out,
)
from jobs.moments import moment_ms
from lakehouse.quarantined import Chosen

quarantine_app = typer.Typer(no_args_is_help=True, help="See what waits in a quarantine, and repair it.")

Stream = Annotated[str, typer.Option("--stream", help="Whose records.")]
Rule = Annotated[str | None, typer.Option("--rule", help="Only records that broke this rule.")]
Since = Annotated[str | None, typer.Option("--since", help="Only records read since a time, or since 2h ago.")]
Until = Annotated[str | None, typer.Option("--until", help="Only records read before a time, or before 2h ago.")]
MaybeKafka = Annotated[str | None, typer.Option("--kafka", envvar=KAFKA_VARIABLE, help="Kafka's HOST:PORT.")]


def add_commands(app: typer.Typer) -> None:
    """Give an application the commands of this module."""
    app.add_typer(quarantine_app, name="quarantine")


def _chosen(rule: str | None, since: str | None, until: str | None, at: str | None = None) -> Chosen:
    now_ms = int(time.time() * 1000)
    place = None
    if at is not None:
        partition, _, offset = at.partition(":")
        if not (partition.isdigit() and offset.isdigit()):
            raise ValueError(f"--at {at!r} is not PARTITION:OFFSET")
        place = int(partition), int(offset)
    since_us, until_us = (None if text is None else moment_ms(text, now_ms) * 1000 for text in (since, until))
    return Chosen(rule, since_us, until_us, place)


@quarantine_app.command("list", epilog="Example: tidegate quarantine list --stream orders --since 1d")
def list_(
    stream: Stream,
    lake: LakeUri,
    contracts: Contracts,
    rule: Rule = None,
    since: Since = None,
    until: Until = None,
    as_json: Json = False,
) -> None:
    """Count the records that wait, by stage, rule and reason."""
    from jobs.quarantine import counts
    from jobs.quarantine_report import show_counts

    found = counts(stream, contracts, lake, _chosen(rule, since, until))
    if as_json:
        print(json.dumps(found, default=str))
    else:
        show_counts(found, stream, out)


@quarantine_app.command(epilog="Example: tidegate quarantine show --stream orders --rule amount_minimum --first 5")
def show(
    stream: Stream,
    lake: LakeUri,
    contracts: Contracts,
    rule: Rule = None,
    since: Since = None,
    until: Until = None,
    at: Annotated[str | None, typer.Option("--at", help="The record at PARTITION:OFFSET alone.")] = None,
    first: Annotated[int, typer.Option(help="How many records, the oldest first.", min=1)] = 10,
    keys: Keys = None,
    as_json: Json = False,
) -> None:
    """Show records that wait: where they came from, what is wrong, and their payload as far as it was kept.

    Encrypted payloads are opened where their key is given.
    """
    from jobs.quarantine import records
    from jobs.quarantine_report import as_plain, show_records

    found = records(stream, contracts, lake, _chosen(rule, since, until, at), keys=keys, first=first)
    if as_json:
        print(json.dumps([as_plain(row) for row in found], default=str))
    else:
        show_records(found, stream, out)


@quarantine_app.command(epilog="Example: tidegate quarantine replay --stream orders --kafka 127.0.0.1:9092")
def replay(
    stream: Stream,
    lake: LakeUri,
    contracts: Contracts,
    kafka: MaybeKafka = None,
    kafka_config: KafkaConfig = None,
    keys: Keys = None,
    name: Pipeline = "main",
    rule: Rule = None,
    since: Since = None,
    until: Until = None,
    at: Annotated[str | None, typer.Option("--at", help="The record at PARTITION:OFFSET alone.")] = None,
    as_json: Json = False,
) -> None:
    """Send records that wait through today's contract again: what passes lands in the tables at its own position.

    The job may run meanwhile. Safe to kill and to call again. Exit code 0: none of them waits any more; 1: some do.
    """
    from jobs.kafka.client import KafkaClient
    from jobs.quarantine import repair
    from jobs.quarantine_report import repaired_as_plain, show_repaired

    client = KafkaClient.from_file(kafka_config, kafka) if kafka or kafka_config else None
    chosen = _chosen(rule, since, until, at)
    done = repair(stream, contracts, lake, name, chosen, kafka=client, keys=keys, console=err)
    if as_json:
        print(json.dumps(repaired_as_plain(done)))
    else:
        show_repaired(done, stream, out)
    raise typer.Exit(PROBLEM if done.left else OK)

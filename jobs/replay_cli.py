"""The commands that go over records again: `tidegate quarantine ...`, `tidegate replay`, `tidegate diff`."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer
from rich.markup import escape

from jobs.cli import (
    KAFKA_VARIABLE,
    OK,
    PROBLEM,
    USAGE,
    Contracts,
    Json,
    KafkaConfig,
    Keys,
    LakeUri,
    LastCluster,
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
At = Annotated[str | None, typer.Option("--at", help="The record at PARTITION:OFFSET alone.")]
MaybeKafka = Annotated[str | None, typer.Option("--kafka", envvar=KAFKA_VARIABLE, help="Kafka's HOST:PORT.")]


def add_commands(app: typer.Typer) -> None:
    """Give an application the commands of this module."""
    app.add_typer(quarantine_app, name="quarantine")
    app.command("replay", epilog="Example: tidegate replay --stream orders --from-time 6h --kafka kafka:9092")(_replay)
    app.command("diff", epilog="Example: tidegate diff --stream orders --with v2")(_diff)


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
    at: At = None,
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
    at: At = None,
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


def _replay(  # noqa: PLR0917 (the options of a command)
    stream: Stream,
    lake: LakeUri,
    contracts: Contracts,
    kafka: MaybeKafka = None,
    kafka_config: KafkaConfig = None,
    keys: Keys = None,
    name: Pipeline = "main",
    from_start: Annotated[bool, typer.Option("--from-start", help="From the first record that Kafka holds.")] = False,
    from_time: Annotated[str | None, typer.Option("--from-time", help="From a time on, or from 2h ago.")] = None,
    from_offset: Annotated[
        list[str] | None, typer.Option("--from-offset", help="From PARTITION:OFFSET or TOPIC:PARTITION:OFFSET.")
    ] = None,
    to_time: Annotated[str | None, typer.Option("--to-time", help="Before a time, or before 2h ago.")] = None,
    to_offset: Annotated[
        list[str] | None, typer.Option("--to-offset", help="Up to and with PARTITION:OFFSET (repeatable).")
    ] = None,
    into: Annotated[
        str | None, typer.Option("--into", help="Into a new version of the tables, beside the present ones.")
    ] = None,
    swap: Annotated[
        str | None, typer.Option("--swap", help="Let the present tables become what this version's are.")
    ] = None,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Swap although the version lacks what Kafka no longer holds.")
    ] = False,
    cluster: LastCluster = None,
    as_json: Json = False,
) -> None:
    """Read a stream's records again by today's contract.

    Into the stream's own tables (the job may run meanwhile): what they lack is added, nothing is taken away. With
    --into NAME: all of it into new tables, to be compared by `tidegate diff`, and taken over by --swap NAME. Safe to
    kill and to call again. Exit code 0: done; 1: refused, or some records were left out, and which.
    """
    from jobs.kafka.client import KafkaClient
    from jobs.replay import as_plain, show_replayed
    from jobs.replay import replay as replay_stream
    from jobs.spans import Asked
    from jobs.versions import fill, show_filled, show_swapped
    from jobs.versions import swap as swap_versions

    if swap is not None:
        done = swap_versions(stream, contracts, lake, name, swap, cluster=cluster, accept_loss=accept_loss, console=err)
        print(json.dumps(done)) if as_json else show_swapped(done, stream, swap, out)
        return
    begins = [from_start, from_time is not None, bool(from_offset)]
    if sum(begins) > 1 or (into is None and not any(begins)):
        raise ValueError("say where to begin: one of --from-start, --from-time and --from-offset")
    now_ms = int(time.time() * 1000)
    from_ms, to_ms = (None if text is None else moment_ms(text, now_ms) for text in (from_time, to_time))
    asked = Asked(tuple(from_offset or ()), from_ms, tuple(to_offset or ()), to_ms)
    client = KafkaClient.from_file(kafka_config, kafka)
    if into is not None:
        filled = fill(stream, contracts, lake, name, into, asked, kafka=client, keys=keys, console=err)
        print(json.dumps(filled.as_dict())) if as_json else show_filled(filled, stream, into, out)
        return
    replayed = replay_stream(stream, contracts, lake, name, asked, kafka=client, keys=keys, console=err)
    print(json.dumps(as_plain(replayed))) if as_json else show_replayed(replayed, stream, out)
    raise typer.Exit(PROBLEM if replayed.too_old or replayed.lost else OK)


def _diff(
    stream: Stream,
    lake: LakeUri,
    contracts: Contracts,
    version: Annotated[str, typer.Option("--with", help="Which version, as it was named by --into.")],
    first: Annotated[int, typer.Option(help="How many differences to list.", min=0)] = 20,
    as_json: Json = False,
) -> None:
    """Compare a stream's table with that of a version that `tidegate replay --into` filled.

    Exit code 0: equal; 1: different; 2: they could not be compared.
    """
    from contracts.faults import ContractError
    from jobs.diff import as_dict, diff, show_diff
    from jobs.errors import TidegateError
    from lakehouse.errors import LakehouseError

    try:
        found = diff(stream, contracts, lake, version, first=first)
    except (TidegateError, LakehouseError, ContractError, ValueError, OSError) as error:
        err.print(escape(str(error)), highlight=False, soft_wrap=True)
        raise typer.Exit(USAGE) from None
    print(json.dumps(as_dict(found), default=str)) if as_json else show_diff(found, out)
    raise typer.Exit(OK if found.comparison.equal else PROBLEM)

"""The ingest job: Kafka change topics into Delta tables. Submitted with `flink run -py jobs/entry/ingest.py`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import DataTypes, Schema, StreamTableEnvironment, Table
from pyflink.table.udf import udf

from contracts.model import Contract
from jobs.commit_function import CommitSections
from jobs.freshness_function import WatchFreshness
from jobs.kafka.client import KafkaClient
from jobs.probe_function import ProbeRegistries
from jobs.refine_function import RefineRecords
from jobs.settings import IngestSettings
from lakehouse.lanes import Lane, channel
from lakehouse.lanes import lanes as stream_lanes
from sql import statement


def build(environment: StreamExecutionEnvironment, settings: IngestSettings) -> None:
    """Put the job's graph into the environment: records, refine, staged, window, commit."""
    contracts = settings.load()
    tables = StreamTableEnvironment.create(environment)
    _functions(tables, settings)
    tables.execute_sql(statement("records", options=source_options(settings, contracts)))
    tables.create_temporary_view("refined", tables.sql_query(statement("refined")))
    # One DataStream for all branches: a table would be planned, and its source read, once a branch.
    announced = tables.to_data_stream(tables.sql_query(statement("announced")))
    tables.create_temporary_view("announced", tables.from_data_stream(announced))
    tables.execute_sql(statement("reports"))
    if any(contract.state.lanes > 1 for contract in contracts):
        tables.execute_sql(statement("beats"))
    statements = tables.create_statement_set()
    for lane, channels in enumerate(lanes(contracts, settings.commit_lanes)):
        tables.create_temporary_view(f"watermarked_{lane}", _union([_watermarked(tables, c) for c in channels]))
        tables.create_temporary_view(f"heard_{lane}", _heard(tables, lane, channels))
        tables.create_temporary_view(f"staged_{lane}", tables.sql_query(statement("staged", lane=lane)))
        windowed = statement("windowed", lane=lane, every=interval(settings.commit_seconds * 1000))
        tables.create_temporary_view(f"windowed_{lane}", tables.sql_query(windowed))
        statements.add_insert_sql(statement("commit", lane=lane))
    tables.execute_sql(statement("ticks"))
    statements.add_insert_sql(statement("freshness"))
    if registries := sorted({contract.registry for contract in contracts if contract.registry}):
        tables.create_temporary_function("probe_registries", _probe(registries))
        statements.add_insert_sql(statement("probe"))
    statements.attach_as_datastream()
    name_operators(environment, contracts, settings.commit_lanes)


@dataclass(frozen=True)
class Channel:
    """What is committed by itself: a stream, or one of its lanes."""

    contract: Contract
    lane: Lane

    @property
    def name(self) -> str:
        """Give the name under which its sections travel."""
        return channel(self.contract.stream, self.lane)


def lanes(contracts: Sequence[Contract], number: int) -> list[list[Channel]]:
    """Deal the streams and their lanes out to commit operators: a slow one holds up only the others of its operator."""
    channels = [Channel(contract, lane) for contract in contracts for lane in stream_lanes(contract.state.lanes)]
    dealt = [channels[operator::number] for operator in range(number)]
    return [operator for operator in dealt if operator]


def _functions(tables: StreamTableEnvironment, settings: IngestSettings) -> None:
    refine = udf(RefineRecords(settings), result_type=DataTypes.STRING(), func_type="pandas", name="refine")
    commit = udf(CommitSections(settings), result_type=DataTypes.STRING(), func_type="pandas", name="commit")
    watch = udf(WatchFreshness(settings), result_type=DataTypes.STRING(), func_type="pandas", name="watch_freshness")
    tables.create_temporary_function("refine", refine)
    tables.create_temporary_function("commit_sections", commit)
    tables.create_temporary_function("watch_freshness", watch)


def _probe(registries: Sequence[str]) -> Any:
    return udf(ProbeRegistries(registries), result_type=DataTypes.STRING(), func_type="pandas", name="probe")


def _heard(tables: StreamTableEnvironment, operator: int, channels: Sequence[Channel]) -> Table:
    """Give a commit operator's sections, with beats for the lanes among them."""
    beats = [tables.sql_query(statement("beat", channel=c.name)) for c in channels if not c.lane.alone]
    if not beats:
        return tables.from_path(f"watermarked_{operator}")
    return _union([tables.sql_query(statement("heard", lane=operator)), *beats])


def _watermarked(tables: StreamTableEnvironment, channel: Channel) -> Table:
    """Give one channel's sections with Flink's watermark on them, for the dashboard (verdicts use the durable one)."""
    sections = tables.to_data_stream(tables.sql_query(statement("of_stream", stream=channel.name)))
    delay = interval(channel.contract.event_time.out_of_orderness_ms)
    schema = (
        Schema.new_builder()
        .column("stream_name", "STRING")
        .column("event_time", "TIMESTAMP_LTZ(3)")
        .column("section", "STRING")
        .watermark("event_time", f"event_time - INTERVAL '{delay}' DAY TO SECOND(3)")
        .build()
    )
    return tables.from_data_stream(sections, schema)


def interval(milliseconds: int) -> str:
    """Give a duration as Flink SQL writes it: days hours:minutes:seconds, below 100 days."""
    seconds, rest = divmod(milliseconds, 1000)
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days} {hour:02}:{minute:02}:{second:02}.{rest:03}"


def _union(branches: Sequence[Table]) -> Table:
    first, *others = branches
    for other in others:
        first = first.union_all(other)
    return first


# A poll takes about what one fetch of a partition holds, and responses arrive while the last poll is worked on; the
# largest response is bounded, because many partitions share the heap.
FETCHING = {"max.poll.records": "2000", "receive.buffer.bytes": "-1", "fetch.max.bytes": str(16 * 2**20)}


def source_options(settings: IngestSettings, contracts: Sequence[Contract]) -> Mapping[str, str]:
    """Give the Kafka source's table options: where to read, from which offsets, as whom."""
    options = {
        "properties.bootstrap.servers": settings.kafka,
        "properties.group.id": settings.group,
        "properties.auto.offset.reset": "earliest",
        "properties.isolation.level": "read_committed",
        "properties.commit.offsets.on.checkpoint": "false",
        "properties.client.id.prefix": f"tidegate-{settings.pipeline}",
        **{f"properties.{name}": value for name, value in FETCHING.items()},
        "scan.topic-partition-discovery.interval": f"{int(settings.discovery_seconds * 1000)} ms",
        **subscription(contracts, settings.absent_topics),
    }
    if settings.kafka_config:
        options |= KafkaClient.from_file(settings.kafka_config, settings.kafka).flink_options()
    return options


def subscription(contracts: Sequence[Contract], absent: Collection[str] = ()) -> dict[str, str]:
    """Give the source's topics: a list of names, or one pattern as soon as a contract has one."""
    names = sorted({topic for contract in contracts for topic in contract.topics}.difference(absent))
    patterns = sorted({contract.topic_pattern for contract in contracts if contract.topic_pattern})
    if not patterns:
        return {"topic": ";".join(names)}
    return {"topic-pattern": "|".join([*(f"({p})" for p in patterns), *(re.escape(name) for name in names)])}


FRESHNESS = "freshness"

# What the planner calls an operator -> what the dashboard shows, so that the job reads like the design's picture.
NAMES = (
    (re.compile(r"^Source: records"), "kafka"),
    (re.compile(r"^Source: ticks"), "ticks"),
    (re.compile(r"^Source: beats"), "beats"),
    (re.compile(r"^PythonCalc\[\d+\]"), "refine"),
    (re.compile(r"^Correlate"), "sections"),
    (re.compile(r"^WatermarkAssigner"), "staged"),
    (re.compile(r"^WindowAggregate"), "window"),
    (re.compile(r"^Sink: reports"), "reports"),
)


def name_operators(environment: StreamExecutionEnvironment, contracts: Sequence[Contract], number: int) -> None:
    """Give every operator its dashboard name, and a uid that is the same in each submission of the same contracts."""
    found: dict[int, Any] = {}
    for root in environment._j_stream_execution_environment.getTransformations():
        _collect(root, found)
    dealt = lanes(contracts, number)
    streams = iter(channel.name for lane in dealt for channel in lane)
    lanes_shown = [f"commit: {', '.join(channel.name for channel in lane)}" for lane in dealt]
    later = iter([*lanes_shown, FRESHNESS, "registries"])  # functions of ours, in the order of the statements
    used: Counter[str] = Counter()
    for transformation in (found[key] for key in sorted(found)):
        name = _shown(transformation.getName())
        if name == "staged":
            name = f"staged: {next(streams)}"
        elif name == "refine" and used["refine"]:
            name = next(later)
        used[name] += 1
        transformation.setName(name)
        if name == FRESHNESS:
            transformation.setParallelism(1)  # one looks for all
        if not transformation.getClass().getSimpleName().startswith(("Union", "Partition")):
            transformation.setUid(f"{name}-{used[name]}")


def _shown(planned: str) -> str:
    return next((shown for pattern, shown in NAMES if pattern.match(planned)), planned)


def _collect(transformation: Any, seen: dict[int, Any]) -> None:
    if transformation.getId() not in seen:
        seen[transformation.getId()] = transformation
        for parent in transformation.getInputs():
            _collect(parent, seen)


def main(arguments: Sequence[str]) -> None:
    """Submit the job; the one argument is IngestSettings as JSON."""
    settings = IngestSettings.from_json(arguments[0])
    environment = StreamExecutionEnvironment.get_execution_environment()
    build(environment, settings)
    environment.execute_async(f"tidegate {settings.pipeline}")

"""The component `kafka`: a single Kafka node (KRaft), broker and controller in one process.

With the setting `secure` = `true` it also listens with SASL_SSL (PLAIN and SCRAM-SHA-512) and with mutual TLS; the
client properties for each way in lie in its folder (jobs.stack.kafka_security).
"""

from __future__ import annotations

import base64
import subprocess
import uuid

from jobs.stack.component import LOOPBACK, Component, Place, Process
from jobs.stack.errors import StackError
from jobs.stack.files import merged, write, write_properties
from jobs.stack.jars import jars, java
from jobs.stack.kafka_probe import answers
from jobs.stack.kafka_security import listeners, users

SECURE = "secure"
NODE = "1"

# One line a record on standard output: the supervisor keeps it as the log.
LOGGING = """\
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %-5p %m (%c{1})%n
"""


def settings(place: Place) -> dict[str, str]:
    """Give server.properties."""
    plain, controller = f"{LOOPBACK}:{place.ports['broker']}", f"{LOOPBACK}:{place.ports['controller']}"
    base = {
        "process.roles": "broker,controller",
        "node.id": NODE,
        "controller.quorum.voters": f"{NODE}@{controller}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listeners": f"PLAINTEXT://{plain},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{plain}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(place.folder / "data"),
        # A topic that nobody created is a mistake that must be seen.
        "auto.create.topics.enable": "false",
        "num.partitions": "3",
        # One node: nothing can be replicated.
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # The defaults of 50 partitions make the first group and the first transaction slow on a laptop.
        "offsets.topic.num.partitions": "5",
        "transaction.state.log.num.partitions": "5",
        "share.coordinator.state.topic.num.partitions": "5",
        "group.initial.rebalance.delay.ms": "0",
        # Kept until the folder goes: tests load messages with old timestamps.
        "log.retention.ms": "-1",
        "log.message.timestamp.before.max.ms": str(2**63 - 1),
        "log.message.timestamp.after.max.ms": str(2**63 - 1),
        "message.max.bytes": str(16 * 1024 * 1024),
        "replica.fetch.max.bytes": str(16 * 1024 * 1024),
    }
    if place.settings.get(SECURE) == "true":
        base |= listeners(place)
    return merged(base, {name: value for name, value in place.settings.items() if name != SECURE})


def prepare(place: Place) -> None:
    """Write server.properties and format the storage once."""
    configuration = write_properties(place.folder / "server.properties", settings(place))
    write(place.folder / "log4j2.properties", LOGGING)
    if (place.folder / "data" / "meta.properties").exists():
        return
    arguments = ["format", "-t", _cluster_id(), "-c", str(configuration)]
    if place.settings.get(SECURE) == "true":
        arguments += [f"--add-scram=SCRAM-SHA-512=[name={name},password={word}]" for name, word in users(place).items()]
    command = [*_java(place, "64m"), "kafka.tools.StorageTool", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise StackError(f"Kafka's storage cannot be formatted in {place.folder / 'data'}: {said[-1] if said else ''}")


def processes(place: Place) -> tuple[Process, ...]:
    """Give the broker."""
    command = (*_java(place, "512m"), "kafka.Kafka", str(place.folder / "server.properties"))
    return (Process("broker", command, {}),)


def missing(place: Place) -> str | None:
    """Say what is missing until clients can work."""
    return None if answers(LOOPBACK, place.ports["broker"]) else "the broker does not answer yet"


def address(place: Place) -> str:
    """Give bootstrap.servers of the listener without security."""
    return f"{LOOPBACK}:{place.ports['broker']}"


def _java(place: Place, heap: str) -> list[str]:
    logging = f"-Dlog4j2.configurationFile={place.folder / 'log4j2.properties'}"
    return [java(), f"-Xmx{heap}", "-Djava.awt.headless=true", logging, "-cp", f"{jars('kafka')}/*"]


def _cluster_id() -> str:
    """Give a random id in Kafka's form: 16 bytes as base64, which the tool must not take for an option."""
    text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return _cluster_id() if text.startswith("-") else text


KAFKA = Component(
    name="kafka",
    ports=("broker", "controller", "sasl", "tls"),
    prepare=prepare,
    processes=processes,
    missing=missing,
    address=address,
    stop_seconds=20.0,
)

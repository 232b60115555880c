"""Make topics, so that messages can be written where they were."""

from __future__ import annotations

from collections.abc import Mapping

from kafka.admin import NewPartitions, NewTopic

from jobs.kafka.client import KafkaClient

READY_MS = 15_000


def ensure_topics(kafka: KafkaClient, partitions: Mapping[str, int], config: Mapping[str, str] | None = None) -> None:
    """Create the topics that are missing and add partitions to those that have too few; raises KafkaProblem."""
    with kafka.admin() as admin:
        existing = set(admin.list_topics())
        missing = {name: count for name, count in partitions.items() if name not in existing}
        if missing:
            admin.create_topics(
                [NewTopic(n, count, 1, topic_configs=dict(config or {})) for n, count in missing.items()]
            )
            admin.wait_for_topics(list(missing), timeout_ms=READY_MS)
        known = [name for name in partitions if name in existing]
        held = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(known)} if known else {}
        few = {name: NewPartitions(partitions[name]) for name in known if held[name] < partitions[name]}
        if few:
            admin.create_partitions(few)
            admin.wait_for_topics(list(few), timeout_ms=READY_MS)


def delete_topics(kafka: KafkaClient, names: list[str]) -> None:
    """Delete topics with all they hold; raises KafkaProblem."""
    with kafka.admin() as admin:
        admin.delete_topics(names)

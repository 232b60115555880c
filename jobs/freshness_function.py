"""How fresh the streams are, as a Flink function of its own: it goes on where nothing is committed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from jobs.exchange import column_result
from jobs.ingest_function import IngestFunction
from jobs.metrics import Metrics

if TYPE_CHECKING:
    import pandas as pd

    from lakehouse.freshness import Health
    from lakehouse.lake import Lake
    from udfs.keys import KeyRing


class WatchFreshness(IngestFunction):
    """watch_freshness(tick) -> NULL; records how fresh the streams are in _tidegate/sla, and sets gauges of it."""

    def prepare(self, lake: Lake, keys: KeyRing, metrics: Metrics) -> None:
        """Make the watch."""
        from jobs.freshness import JOB, Freshness, FreshnessWatch
        from jobs.kafka.client import KafkaClient

        settings = self.settings
        kafka = KafkaClient.from_file(settings.kafka_config, settings.kafka)
        freshness = Freshness(self.contracts, lake, settings.pipeline, kafka)
        self._watch = FreshnessWatch(freshness, JOB, settings.freshness_seconds)
        self._metrics = metrics

    def eval(self, ticks: pa.Array) -> pd.Series[str]:
        """Look once in freshness_seconds; the gauges are set by the tick after."""
        from lakehouse.freshness import Job

        looked = self._watch.look(lambda: Job.RUNS)
        if looked is not None:
            self._metrics.count("sla_failures", int(bool(looked.failure)))
            for stream, health in looked.healths.items():
                report(self._metrics, stream, health)
        return column_result(pa.nulls(len(ticks), pa.string()))


def report(metrics: Metrics, stream: str, health: Health) -> None:
    """Set the gauges of one stream; what is not known keeps its last value."""
    from lakehouse.freshness import SEVERITY

    m = health.measures
    metrics.set("sla_colour", SEVERITY.index(health.colour), stream=stream)
    metrics.set("sla_violated", sum(level.passed for level in health.levels), stream=stream)
    if m.event_lag_ms is not None:
        metrics.set("sla_event_lag_ms", m.event_lag_ms, stream=stream)
    if m.commit_age_ms is not None:
        metrics.set("sla_commit_age_ms", m.commit_age_ms, stream=stream)
    if m.watermark_lag_ms is not None:
        metrics.set("sla_watermark_lag_ms", m.watermark_lag_ms, stream=stream)
    if m.waiting is not None:
        metrics.set("sla_waiting_records", m.waiting, stream=stream)
        metrics.set("sla_oldest_waiting_ms", m.oldest_waiting_ms or 0, stream=stream)

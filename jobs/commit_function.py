"""commit as a Flink function: the sections of the windows that fired in, one report a stream out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from jobs.exchange import column_result
from jobs.ingest_function import IngestFunction
from jobs.metrics import Metrics

if TYPE_CHECKING:
    import pandas as pd

    from lakehouse.lake import Lake
    from udfs.keys import KeyRing


class CommitSections(IngestFunction):
    """commit(channel, sections) -> report (JSON). An empty section stands for a beat: see sql/beats.sql."""

    def prepare(self, lake: Lake, keys: KeyRing, metrics: Metrics) -> None:
        """Make the committer."""
        from jobs.committer import Committer
        from jobs.kafka.client import KafkaClient

        self._committer = Committer(
            settings=self.settings,
            contracts={contract.stream: contract for contract in self.contracts},
            lake=lake,
            keys=keys,
            kafka=KafkaClient.from_file(self.settings.kafka_config, self.settings.kafka),
            metrics=metrics,
        )

    def eval(self, streams: pa.Array, sections: pa.Array) -> pd.Series[str]:
        """Commit all windows that fired, each channel once."""
        names = streams.to_pylist()
        texts: dict[str, list[str]] = {}
        for name, lines in zip(names, sections.to_pylist(), strict=True):
            texts.setdefault(name, []).extend(filter(None, lines))
        reports = self._committer.commit(texts)
        return column_result(pa.array([reports[name] for name in names], pa.string()))

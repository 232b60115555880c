"""What the functions of the ingest job share: settings travel with the job, all else is opened on a worker."""

from __future__ import annotations

from abc import abstractmethod

from pyflink.table.udf import FunctionContext, ScalarFunction

from jobs.credentials import key_ring, lake_options
from jobs.exchange import exchange_arrow_columns
from jobs.metrics import FlinkMetrics, Metrics
from jobs.settings import IngestSettings
from lakehouse.lake import Lake
from udfs.keys import KeyRing


class IngestFunction(ScalarFunction):  # type: ignore[misc]
    """A function over Arrow columns that reads its secrets and opens the lake once a worker."""

    def __init__(self, settings: IngestSettings) -> None:
        self.settings = settings
        self.contracts = settings.load()

    def is_deterministic(self) -> bool:
        """Tell the planner that a second call is not the same as the first."""
        return False

    def open(self, function_context: FunctionContext) -> None:
        """Read the secrets and open the lake, on the worker."""
        exchange_arrow_columns()
        lake = Lake.open(self.settings.lake, lake_options())
        self.prepare(lake, key_ring(self.settings.keys), FlinkMetrics(function_context))

    @abstractmethod
    def prepare(self, lake: Lake, keys: KeyRing, metrics: Metrics) -> None:
        """Make the working part."""

"""What waits in <stream>_quarantine: counted, shown, and marked resolved once something else has become of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from contracts.model import Contract
from contracts.types import MICROS_UTC
from lakehouse import quarantine
from lakehouse.groups import Ints
from lakehouse.lake import Lake
from lakehouse.merge.locations import POSITION_BITS
from lakehouse.merge.merge_table import MergeTable
from lakehouse.progress import Writer
from lakehouse.quarantine import RESOLVED_AT
from lakehouse.read import engine, give_secret
from lakehouse.shape import shape_of

COORDINATES = ("_topic", "_partition", "_offset")
LOCATION = "_location"
PAYLOAD = ("_payload", "_payload_form", "_payload_key_id", "_kafka_time")


@dataclass(frozen=True)
class Chosen:
    """Which waiting records are meant; None: all."""

    rule: str | None = None
    since_us: int | None = None  # read by the pipeline at or after it (us since the epoch)
    until_us: int | None = None  # and before
    place: tuple[int, int] | None = None  # partition, offset

    def sql(self) -> tuple[str, dict[str, Any]]:
        """Give the condition and its parameters."""
        parts = {
            "list_contains(_rules, $rule)": ("rule", self.rule),
            "epoch_us(_ingested_at) >= $since": ("since", self.since_us),
            "epoch_us(_ingested_at) < $until": ("until", self.until_us),
        }
        told = {sql: given for sql, given in parts.items() if given[1] is not None}
        values: dict[str, Any] = dict(told.values())
        where = [f"{RESOLVED_AT} IS NULL", *told]
        if self.place is not None:
            where.append("_partition = $partition AND _offset = $offset")
            values |= {"partition": self.place[0], "offset": self.place[1]}
        return " AND ".join(where), values


class Quarantined:
    """Reads one version of a stream's quarantine table."""

    def __init__(self, lake: Lake, contract: Contract) -> None:
        self._lake = lake
        name = quarantine.KIND.table_name(contract.stream)
        self._uri, self.version = lake.table_uri(name), -1
        with lake.explained(f"open table {name}"):
            try:
                table = DeltaTable(self._uri, storage_options=dict(lake.storage_options))
            except TableNotFoundError:
                return
            self.version, held = table.version(), {f.name for f in table.schema().fields}
        lacking = [f for f in quarantine.COMMITTED if f.name not in held]  # of a table of an earlier version
        self._beside = "".join(f", NULL::{_SQL[f.name]} AS {f.name}" for f in lacking)

    def counts(self, chosen: Chosen) -> list[dict[str, Any]]:
        """Give how many records wait, by stage, rule and reason, with when the first and the last were read."""
        where, values = chosen.sql()
        return self._listed(
            f"""
            SELECT _stage AS stage, rule, _reason AS reason, count(*) AS records,
                   min(_ingested_at) AS first, max(_ingested_at) AS last
            FROM (SELECT *, unnest(_rules) AS rule FROM held WHERE {where})
            GROUP BY ALL ORDER BY records DESC, stage, rule, reason
            """,
            values,
        )

    def records(self, chosen: Chosen, first: int) -> list[dict[str, Any]]:
        """Give waiting records whole, the oldest first, at most so many."""
        where, values = chosen.sql()
        order = "_ingested_at, _topic, _partition, _offset"
        return self._listed(f"SELECT * FROM held WHERE {where} ORDER BY {order} LIMIT {first}", values)

    def places(self, chosen: Chosen) -> pa.Table:
        """Give where waiting records came from (COORDINATES, _epoch), in order; one that two stages refused once."""
        where, values = chosen.sql()
        names = ", ".join(COORDINATES)
        select = f"SELECT {names}, _epoch, any_value(_payload_form) AS _payload_form FROM held WHERE {where}"
        return self._asked(f"{select} GROUP BY {names}, _epoch ORDER BY {names}, _epoch", values)

    def payloads(self, places: pa.Table) -> list[dict[str, Any]]:
        """Give what is kept of the records at places (COORDINATES, _epoch): their coordinates and PAYLOAD."""
        names = ", ".join(f"h.{name}" for name in (*COORDINATES, "_epoch", *PAYLOAD))
        same = " AND ".join(f"h.{name} = p.{name}" for name in COORDINATES)
        return self._listed(
            f"SELECT DISTINCT ON (h._topic, h._partition, h._offset, h._epoch) {names} FROM held h JOIN places p"
            f" ON {same} AND coalesce(h._epoch, 0) = p._epoch WHERE h.{RESOLVED_AT} IS NULL",
            {},
            places=places,
        )

    def _listed(self, sql: str, values: Mapping[str, Any], **tables: pa.Table) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._asked(sql, values, **tables).to_pylist()
        return rows

    def _asked(self, sql: str, values: Mapping[str, Any], **tables: pa.Table) -> pa.Table:
        if self.version < 0:
            return pa.table({name: pa.nulls(0) for name in (*COORDINATES, "_epoch", *PAYLOAD)})
        with engine() as duck:
            if self._lake.remote:
                give_secret(duck, self._lake)
            duck.execute("SET TimeZone = 'UTC'")
            for name, table in tables.items():
                duck.register(name, table)
            uri = self._uri.replace("'", "''")
            scan = f"delta_scan('{uri}', version={self.version})"
            return duck.execute(f"WITH held AS (SELECT *{self._beside} FROM {scan}) {sql}", values).to_arrow_table()


_SQL = {"_epoch": "INTEGER", RESOLVED_AT: "TIMESTAMPTZ"}


class Waiting:
    """A stream's quarantine table at one snapshot: its records that wait, and the mark of those that are resolved."""

    def __init__(self, lake: Lake, contract: Contract, pipeline: str, pins: Mapping[str, str]) -> None:
        self._table = MergeTable(lake, quarantine.KIND, shape_of(quarantine.KIND, contract, pins), Writer(pipeline))

    def open(self) -> bool:
        """Read the newest snapshot; False when there is no such table."""
        return self._table.open()

    @property
    def version(self) -> int:
        """Give the snapshot's version."""
        return self._table.version

    def rows(self, columns: list[str], *, resolved: bool = False) -> pa.Table:
        """Give columns of the records that wait (with resolved: of all), and each one's LOCATION."""
        parts = list(self._parts(columns, resolved))
        kind = pa.schema([*(self._table.columns.field(name) for name in columns), pa.field(LOCATION, pa.int64())])
        return pa.concat_tables(parts) if parts else kind.empty_table()

    def _parts(self, columns: list[str], resolved: bool) -> Iterator[pa.Table]:
        for number in self._table.files():
            read = [*columns, *([] if RESOLVED_AT in columns else [RESOLVED_AT])]
            rows, dead = self._table.scan(number, read), self._table.dead(number)
            kept = np.ones(len(rows), np.bool_) if resolved else rows[RESOLVED_AT].is_null().to_numpy()
            if dead is not None:
                kept[np.array(dead.to_array(), np.int64)] = False
            where = pa.array(np.arange(len(rows)) | (number << POSITION_BITS))
            yield rows.select(columns).append_column(LOCATION, where).filter(pa.array(kept))

    def resolve(self, locations: Ints, now_ms: int) -> None:
        """Mark the records at locations as resolved, in one commit; raises as MergeTable.commit does.

        Files that hold one are written again. The newest state is repeated: one read of the log's tail still finds it.
        """
        rows = self._table.rows(locations)
        at = pa.repeat(pa.scalar(now_ms * 1000), len(rows)).cast(MICROS_UTC)
        place = rows.schema.get_field_index(RESOLVED_AT)
        rows = rows.set_column(place, rows.schema.field(place), at.cast(rows.schema.field(place).type))
        self._table.commit(rows, locations, {}, self._table.state(), operation="UPDATE")

"""Build the tables of a stream's state from its changes: for tables that join a stream which already has progress."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from contracts.columns import QUARANTINE, WITHHELD_META, withheld_schema
from contracts.model import Action, Contract
from lakehouse.anchor import Floor, Floors, merged_floors
from lakehouse.groups import Partition
from lakehouse.kind import Batch
from lakehouse.lake import Lake
from lakehouse.order import Begun, begun_in
from lakehouse.quarantine import RESOLVED_AT
from lakehouse.state.events import parsed_keys
from lakehouse.state.floors import raised
from lakehouse.state.table import StateTable

ROWS = 1_000_000  # of one commit


def unbuildable(contract: Contract) -> str | None:
    """Say why a contract's state cannot be told from its changes; None when it can."""
    if contract.row_filter is not None:
        return "the changes do not say which rows left the row filter"
    if any(rule.action is Action.DROP for rule in contract.rules):
        return "the changes do not say which rows a rule dropped"
    return None


def build(
    lake: Lake,
    contract: Contract,
    changes: str,
    quarantine: str,
    tables: Sequence[StateTable],
    epochs: Mapping[str, int],
) -> Floors:
    """Fill tables of a stream's state from the tables of its changes and quarantine; gives the truncates' floors.

    Nothing else may commit to the stream meanwhile. Done again after a crash it changes what is lacking: positions
    decide. The tables have no progress yet afterwards.
    """
    floors: dict[str, tuple[Floor, ...]] = {}
    begun = begun_of(lake, changes)
    for epoch, rows in _by_epoch(batches_of(lake, changes)):  # a snapshot ranks the changes of its own epoch
        batch = Batch(rows, QUARANTINE.empty_table(), begun=begun.get(epoch, {}))
        new = raised(contract, batch, epochs)
        floors = merged_floors(floors, new)
        _fill(tables, replace(batch, floors=floors, raised=merged_floors({}, new)))
    for epoch, rejects in _by_epoch(batches_of(lake, quarantine)):
        waits = waiting(rejects.filter(pc.is_null(rejects[RESOLVED_AT])), contract)
        if len(waits):
            waits = waits.append_column("_epoch", pa.repeat(pa.scalar(epoch, pa.int32()), len(waits)))
            own, nothing = begun.get(epoch, {}), _nothing(lake, changes)
            _fill(tables, Batch(nothing, QUARANTINE.empty_table(), waits, begun=own, floors=floors))
    return floors


def _fill(tables: Sequence[StateTable], batch: Batch) -> None:
    tables[-1].open()
    for table in tables:
        table.fill(batch)


def _by_epoch(tables: Iterable[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
    """Give rows that have epochs (null: 0) by epoch."""
    for rows in tables:
        epochs = pc.fill_null(rows["_epoch"], 0)
        for epoch in sorted(pc.unique(epochs).to_pylist()):
            yield epoch, rows.filter(pc.equal(epochs, epoch))


def begun_of(lake: Lake, changes: str) -> dict[int, Begun]:
    """Give the initial snapshots that the changes hold, by epoch: rows come in no order, but must be ranked by them."""
    begun: dict[int, dict[Partition, list[tuple[int, int]]]] = {}
    columns = ["_snapshot", "_position_major", "_position_minor", "_topic", "_partition", "_offset", "_epoch"]
    for epoch, rows in _by_epoch(batches_of(lake, changes, columns)):
        known = begun.setdefault(epoch, {})
        for partition, own in begun_in(rows).items():
            lowest = {lsn: at for at, lsn in sorted([*known.get(partition, ()), *own], reverse=True)}
            known[partition] = [(at, lsn) for lsn, at in lowest.items()]
    return dict(begun)


def batches_of(lake: Lake, table: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Give the rows of an append-only table in tables of bounded size."""
    with lake.explained(f"read table {table}"):
        held = DeltaTable(lake.table_uri(table), storage_options=dict(lake.storage_options)).to_pyarrow_dataset()
        yield from gathered(held.to_batches(columns=None if columns is None else list(columns)))


def gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Give batches in tables of bounded size."""
    parts: list[pa.RecordBatch] = []
    for part in batches:
        parts.append(part)
        if sum(len(one) for one in parts) >= ROWS:
            yield pa.Table.from_batches(parts)
            parts = []
    if parts:
        yield pa.Table.from_batches(parts)


def _nothing(lake: Lake, table: str) -> pa.Table:
    held = DeltaTable(lake.table_uri(table), storage_options=dict(lake.storage_options))
    return pa.schema(held.schema().to_arrow()).empty_table()


def waiting(rejects: pa.Table, contract: Contract) -> pa.Table:
    """Give the quarantined changes whose key is known as withheld ones."""
    rejects = rejects.filter(pc.and_(pc.is_valid(rejects["_key"]), pc.is_valid(rejects["_op"])))
    if not len(rejects):
        return WITHHELD_META.empty_table()
    schema = withheld_schema(contract)
    keys = parsed_keys(rejects["_key"].to_pylist(), contract, schema)
    beside = {"_kind": pa.repeat("rejected", len(rejects))}
    found = {**dict(zip(keys.column_names, keys.columns, strict=True)), **beside}
    columns = [
        found[f.name]
        if f.name in found
        else rejects[f.name].cast(f.type)
        if f.name in rejects.column_names
        else pa.nulls(len(rejects), f.type)
        for f in schema
    ]
    waits = pa.Table.from_arrays(columns, schema=schema)
    for name in keys.column_names:
        waits = waits.filter(pc.is_valid(waits[name]))
    return waits

"""Where records stand: their Kafka coordinates and the epoch of these, compared between tables."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from lakehouse.groups import Flags, Partition
from lakehouse.lake import Lake
from lakehouse.quarantined import COORDINATES
from lakehouse.table import StreamTable
from lakehouse.tables import KeptTable

PLACE = [*COORDINATES, "_epoch"]


def texts(places: pa.Table) -> pa.Array:
    """Give PLACE as one text a row."""
    columns = [places[name].cast(pa.string()) for name in PLACE]
    joined = pc.binary_join_element_wise(*columns, "/")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def among(rows: pa.Table, places: pa.Table) -> Flags:
    """Mark the rows whose PLACE is among others."""
    if not len(rows) or not len(places):
        return np.zeros(len(rows), np.bool_)
    marks: Flags = pc.is_in(texts(rows), value_set=texts(places)).to_numpy(zero_copy_only=False)
    return marks


def held_places(
    lake: Lake, changes: KeptTable | None, places: pa.Table, told: Callable[[pa.Table], pa.Table]
) -> pa.Table:
    """Give those of the places that the changes hold, at their snapshot; told: what of two places is compared."""
    if changes is None or not len(places):
        return places.slice(0, 0)
    assert isinstance(changes, StreamTable)
    offsets = pc.unique(places["_offset"])
    found = []
    with lake.explained(f"read table {changes.name}"):
        whole = changes.delta.to_pyarrow_dataset()
        for part in whole.to_batches(columns=PLACE, filter=_around(places)):
            found.append(part.filter(pc.is_in(part["_offset"], value_set=offsets)))
    held = pa.Table.from_batches(found).cast(places.schema) if found else places.slice(0, 0)
    return held.filter(pa.array(among(told(held), told(places))))


def of_partition(partition: Partition) -> ds.Expression:
    """Give a filter for the rows of a partition."""
    return (ds.field("_topic") == partition[0]) & (ds.field("_partition") == partition[1])


def _around(places: pa.Table) -> ds.Expression:
    """Give a filter for the partitions of places, each from its lowest offset to its highest."""
    spans = places.group_by(["_topic", "_partition"]).aggregate([("_offset", "min"), ("_offset", "max")])
    found = None
    for span in spans.to_pylist():
        own = of_partition((span["_topic"], span["_partition"]))
        own &= (ds.field("_offset") >= span["_offset_min"]) & (ds.field("_offset") <= span["_offset_max"])
        found = own if found is None else found | own
    return found

"""Keys as numbers: what an index finds a row by. Pure.

One integer column is its own number, exactly. Any other key is two independent 64-bit hashes, which together tell keys
apart (two of a thousand million keys are confused with a chance of about 1 in 10^21), so that no stored key is read to
verify a hit. The numbers are the same on every machine and in every version: indexes are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import polars_hash
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
SEEDS = (0x7469646567617465, 0x64656C7461206C6B)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True)
class Keys:
    """The numbers of rows' keys; `check` is None where `low` alone is exact."""

    low: Ints
    check: Ints | None

    def __len__(self) -> int:
        return len(self.low)

    def take(self, where: npt.NDArray[np.intp] | npt.NDArray[np.bool_] | slice) -> Keys:
        """Give some of the keys."""
        return Keys(self.low[where], None if self.check is None else self.check[where])

    def groups(self) -> tuple[Ints, npt.NDArray[np.intp]]:
        """Give each row's group (0, 1, ... by equal keys) and one row of each group."""
        if self.check is None:
            _, first, group = np.unique(self.low, return_index=True, return_inverse=True)
            return group.astype(np.int64, copy=False), first
        order = np.lexsort((self.check, self.low))
        low, check = self.low[order], self.check[order]
        new = np.ones(len(order), np.bool_)
        new[1:] = (low[1:] != low[:-1]) | (check[1:] != check[:-1])
        group = np.empty(len(order), np.int64)
        group[order] = np.cumsum(new) - 1
        return group, order[new]


def keys_of(columns: Sequence[pa.ChunkedArray | pa.Array]) -> Keys:
    """Give the numbers of keys that stand in one or several columns, none of them null."""
    flat = [_flat(column) for column in columns]
    if len(flat) == 1 and pa.types.is_integer(flat[0].type):
        return Keys(flat[0].cast(pa.int64()).to_numpy(zero_copy_only=False), None)
    low, check = (_combined([_hashed(column, seed) for column in flat], seed) for seed in SEEDS)
    return Keys(low.view(np.int64), check.view(np.int64))


def concat_keys(parts: Sequence[Keys]) -> Keys:
    """Give all keys in one, in order."""
    checks = [part.check for part in parts if part.check is not None]
    return Keys(np.concatenate([part.low for part in parts]), np.concatenate(checks) if checks else None)


def _flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _combined(columns: Sequence[Hashes], seed: int) -> Hashes:
    combined = np.full(len(columns[0]), seed, np.uint64)
    for column in columns:
        combined = mixed(combined * _GOLDEN + column)
    return combined


def mixed(numbers: Hashes) -> Hashes:
    """Finish a hash (splitmix64)."""
    mixed = numbers + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX[0]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[1]
    return mixed ^ (mixed >> np.uint64(31))


def _hashed(column: pa.Array, seed: int) -> Hashes:
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int64())
    if pa.types.is_date32(kind):
        column = column.cast(pa.int32())
    if pa.types.is_integer(column.type) or pa.types.is_temporal(column.type):
        return mixed(column.cast(pa.int64()).to_numpy(zero_copy_only=False).view(np.uint64) ^ np.uint64(seed))
    if pa.types.is_floating(kind):
        # PostgreSQL holds -0 equal to 0, and every NaN equal to every other.
        floats = column.cast(pa.float64()).to_numpy(zero_copy_only=False) + 0.0
        floats = np.where(np.isnan(floats), np.nan, floats)
        return mixed(floats.view(np.uint64) ^ np.uint64(seed))
    hashed = polars_hash.col("key").nchash.xxh3_64(seed=seed)
    found = pl.DataFrame({"key": pl.from_arrow(_texts(column))}).select(hashed)["key"].to_numpy()
    return np.asarray(found, np.uint64)


def _texts(column: pa.Array) -> pa.Array:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column
    if pa.types.is_binary(column.type):
        return pa.array([value.hex() for value in column.to_pylist()], pa.string())  # bytea keys are rare
    if pa.types.is_nested(column.type):
        return pa.array([str(value) for value in column.to_pylist()], pa.string())  # arrays as keys are rarer still
    return pc.cast(column, pa.string())

"""The arrays of indexes stay in memory up to the budget, and are mapped beyond it."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from lakehouse.groups import Ints
from lakehouse.merge.index import Entries, KeyIndex
from lakehouse.merge.index_memory import FITS, IndexMemory
from lakehouse.merge.keys import Keys


def mapped(array: Ints) -> bool:
    base = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)


def test_what_does_not_fit_into_the_budget_is_mapped_and_reads_the_same() -> None:
    memory = IndexMemory(800 * FITS, small=1)
    arrays = [memory.placed(np.arange(n, n + 100)) for n in range(8)]
    assert [mapped(array) for array in arrays] == [False] + [True] * 7 and memory.held == 800
    assert all(array.tolist() == list(range(n, n + 100)) for n, array in enumerate(arrays))


def test_large_arrays_leave_room_for_small_ones() -> None:
    memory = IndexMemory(10_000, small=1)
    assert mapped(memory.placed(np.arange(1_000)))
    assert not mapped(memory.placed(np.arange(10)))


def test_an_array_that_is_gone_gives_its_room_back() -> None:
    memory = IndexMemory(800 * FITS, small=1)
    array = memory.placed(np.arange(100))
    assert memory.held == 800
    view = array[:10]
    del array
    assert memory.held == 800, "a view still holds it"
    del view
    assert memory.held == 0


def test_small_arrays_are_not_counted() -> None:
    memory = IndexMemory(0)
    assert not mapped(memory.placed(np.arange(100))) and memory.held == 0


def test_a_disk_that_takes_nothing_costs_memory_and_no_answer(tmp_path: Path) -> None:
    memory = IndexMemory(0, tmp_path / "missing", small=1)
    assert memory.placed(np.arange(100)).tolist() == list(range(100))


def test_all_indexes_of_a_process_share_one_budget() -> None:
    memory = IndexMemory(400_000, small=1)
    indexes = [KeyIndex(versions=versions, memory=memory) for versions in (False, True, False)]
    for first in range(0, 40_000, 4_000):
        for index in indexes:
            keys = np.arange(first, first + 4_000) * 7 % 40_000
            index.put(Entries(Keys(keys, None), keys, keys, keys))
            assert memory.held <= 400_000
    asked = Keys(np.arange(40_000), None)
    assert all(index.last(asked).entries.location.tolist() == list(range(40_000)) for index in indexes)
    assert sum(run.nbytes for index in indexes for run in index.runs) > 2 * 400_000

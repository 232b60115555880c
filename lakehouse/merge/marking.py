"""Merge-on-read: rows to be removed are marked in deletion vectors; those of a commit lie in one file."""

from __future__ import annotations

import obstore
from pyroaring import BitMap

from lakehouse.groups import Ints
from lakehouse.lake import Lake
from lakehouse.merge.actions import marked, removed
from lakehouse.merge.live import LiveFiles
from lakehouse.merge.log import Action
from lakehouse.merge.vectors import Descriptor, pack


class Marking:
    """Marks the rows of one commit, and once more when the commit is put again on top of another snapshot."""

    def __init__(self, lake: Lake, table: str, live: LiveFiles, remove: Ints) -> None:
        self._lake = lake
        self._table = table
        self._live = live
        self._remove = remove
        # File number -> the id of the vector that its new one was made from, and where the new one is.
        self._packed: dict[int, tuple[str | None, Descriptor]] = {}

    def marked(self) -> tuple[list[Action], dict[int, BitMap]]:
        """Write the vectors that delete the rows; gives the actions of the commit, and the vectors by file number.

        A vector that was written before is not written again, unless the file has got another one since.
        """
        live = self._live
        grown = live.deleting(self._remove)
        vectors = {n: rows for n, rows in grown if len(rows) < live.row_count(n)}
        actions = [removed(live.files[number]) for number, _ in grown if number not in vectors]
        self._pack({n: rows for n, rows in vectors.items() if not self._stands(n)})
        for number in vectors:
            file = live.files[number]
            actions += [removed(file), marked(file, self._packed[number][1], live.row_count(number))]
        return actions, vectors

    def _stands(self, number: int) -> bool:
        return number in self._packed and self._packed[number][0] == self._live.files[number].vector_id

    def _pack(self, vectors: dict[int, BitMap]) -> None:
        if not vectors:
            return
        path, data, descriptors = pack(list(vectors.values()))
        with self._lake.explained(f"write the deletion vectors of table {self._table}"):
            obstore.put(self._lake.objects, f"{self._table}/{path}", data)
        for number, descriptor in zip(vectors, descriptors, strict=True):
            self._packed[number] = self._live.files[number].vector_id, descriptor

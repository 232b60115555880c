"""What happens to the keys of the chaos load: one script that families of eight keys live through, again and again.

A family has two keys (0 and 1) in each of four partitions. A step of the script is four records in every partition, at
the same offsets, so that a key can change several times within one batch, and a key change can lead to another
partition: the delete there and the create here stand at the same offset. In the script a record is written as

    c0   create of key 0            n0   update that a rule quarantines
    u0   update of the whole row    b0   record that nobody can decode
    t0   update without the note    x0   tombstone
    d0   delete                     m0   delete of a key change (the create that names it says where to)
    k1<2.0, K1<2.0   create of key 1 in a key change from key 0 of partition 2; K without the note

The create of a key change within one partition stands two records behind the delete, with its position. After eight
steps every key of a family is gone. Families begin at different steps, so that all steps meet at all times; one that
begins in the middle first creates the keys that live there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

PARTITIONS, MEMBERS, STEPS, WIDTH = 4, 2, 8, 4
SCRIPT = (  # per step: one line a partition
    ("c0 u0 t0 u0", "c0 d0 x0 c0", "x0 c0 t0 u0", "c1 u1 t1 d1"),
    ("t0 n0 t0 d0", "u0 t0 u0 n0", "t0 t0 t0 m0", "x1 c1 d1 K0<2.0"),
    ("x0 c0 u0 t0", "t0 u0 d0 x0", "x0 c0 u0 n0", "t0 t0 u0 t0"),
    ("m0 x0 c0 t0", "K1<0.0 t1 m1 x1", "u0 d0 K1<1.1 t1", "n0 t0 u0 d0"),
    ("u0 d0 x0 c1", "c1 u1 t1 d1", "t1 u1 t1 n1", "x0 c0 u0 t0"),
    ("t1 m1 x1 K0<0.1", "x1 c1 t1 n1", "m1 x1 K0<2.1 t0", "n0 t0 d0 x0"),
    ("t0 n0 b0 u0", "m1 x1 c0 t0", "t0 d0 x0 c1", "k1<1.1 t1 u1 t1"),
    ("d0 x0 b1 x1", "d0 x0 x1 x0", "t1 n1 d1 x1", "t1 t1 d1 x1"),
)
# What a record is; those up to STORED are rows of the table of changes.
CREATE, UPDATE, UNSET, DELETE, MOVE, LINK, LINK_UNSET, NEGATIVE, BROKEN, TOMBSTONE = range(10)
STORED = LINK_UNSET
LETTERS = dict(zip("cutdmkKnbx", range(10), strict=True))
_CELL = re.compile(r"([a-zA-Z])([01])(?:<(\d)\.([01]))?")
Place = tuple[int, int, int]  # round, record within it, partition
Key = tuple[int, int]  # partition, member
Bytes = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Cell:
    """One record of a family."""

    what: int
    member: int
    other: Key | None = None  # of a key change: the key before (LINK) or after (MOVE)
    behind: int = 0  # records by which its position stands before its place
    note: tuple[int, int, int] | None = None  # where the row's note comes from: rounds back, record, partition


@dataclass(frozen=True)
class Lives:
    """All cells by variant, round, record in it and partition, as arrays; of a round beyond the last, `cycle` goes on.

    The first axis: a variant's rounds up to its first end of the script, one variant after the other, then the script.
    """

    what: Bytes
    member: Bytes
    other_partition: Bytes
    other_member: Bytes
    behind: Bytes
    note_rounds: Bytes
    note_record: Bytes
    note_partition: Bytes
    begin: npt.NDArray[np.int64]  # variant -> its first round; then the script's first step

    def row(self, variant: npt.NDArray[np.int64], turn: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Give the place in the first axis of a variant's round (counted from 0)."""
        opening = STEPS - variant  # the round with which the first pass through the script ends
        later = self.begin[STEPS] + (turn - opening - 1) % STEPS
        return np.where(turn <= opening, self.begin[variant] + turn, later)


def read_script() -> list[list[list[Cell]]]:
    """Give the script's cells by step, record and partition, without what they follow from."""
    steps = []
    for step in SCRIPT:
        lines = [[_cell(word) for word in line.split()] for line in step]
        for number, line in enumerate(lines):
            for at, cell in enumerate(line):
                if cell.what in (LINK, LINK_UNSET) and cell.other is not None:
                    partition, member = cell.other
                    before = at - 2 if partition == number else at
                    assert lines[partition][before] == Cell(MOVE, member), f"no move leads to {step} {cell}"
                    lines[partition][before] = Cell(MOVE, member, (number, cell.member))
                    line[at] = Cell(cell.what, cell.member, cell.other, at - before)
        steps.append([[line[at] for line in lines] for at in range(WIDTH)])
    return steps


def _cell(word: str) -> Cell:
    match = _CELL.fullmatch(word)
    assert match, word
    letter, member, partition, other = match.groups()
    return Cell(LETTERS[letter], int(member), (int(partition), int(other)) if partition else None)


def lives() -> Lives:
    """Play the script from every beginning; a record that does not follow from those before is an AssertionError."""
    script = read_script()
    rounds: list[list[list[Cell]]] = []
    begin = []
    for variant in range(STEPS):
        begin.append(len(rounds))
        _, alive = _played(script[:variant])
        told, left = _played([_opening(set(alive)), *script[variant:]])
        assert not left, f"the script leaves keys behind: {sorted(left)}"
        rounds += told
    begin.append(len(rounds))
    rounds += _played(script)[0]
    fields = {name: _array(rounds, read) for name, read in _READ.items()}
    return Lives(**fields, begin=np.array(begin, np.int64))


_READ: dict[str, Callable[[Cell], int]] = {
    "what": lambda cell: cell.what,
    "member": lambda cell: cell.member,
    "other_partition": lambda cell: cell.other[0] if cell.other else -1,
    "other_member": lambda cell: cell.other[1] if cell.other else -1,
    "behind": lambda cell: cell.behind,
    "note_rounds": lambda cell: cell.note[0] if cell.note else 0,
    "note_record": lambda cell: cell.note[1] if cell.note else 0,
    "note_partition": lambda cell: cell.note[2] if cell.note else 0,
}


def _array(rounds: list[list[list[Cell]]], read: Callable[[Cell], int]) -> Bytes:
    return np.array([[[read(cell) for cell in cells] for cells in one] for one in rounds], np.int8)


def _opening(alive: set[Key]) -> list[list[Cell]]:
    """Give the round that creates the keys which live where a family begins."""
    cells = [[Cell(TOMBSTONE, at % MEMBERS) for _ in range(PARTITIONS)] for at in range(WIDTH)]
    for partition, member in alive:
        cells[member][partition] = Cell(CREATE, member)
    return cells


def _played(rounds: list[list[list[Cell]]]) -> tuple[list[list[list[Cell]]], dict[Key, Place]]:
    """Give the cells with the place that their row's note comes from; and the keys alive at the end, with theirs."""
    told: list[list[list[Cell]]] = []
    notes: dict[Key, Place] = {}
    for turn, one in enumerate(rounds):
        told.append([])
        moved: dict[Key, Place] = {}  # within this round
        for at, cells in enumerate(one):
            moved |= {(p, c.member): notes.pop((p, c.member)) for p, c in enumerate(cells) if c.what == MOVE}
            for partition, cell in enumerate(cells):
                _live(notes, moved, (turn, at, partition), cell)
            told[-1].append([_noted(cell, notes.get((p, cell.member)), turn) for p, cell in enumerate(cells)])
    return told, notes


def _live(notes: dict[Key, Place], moved: dict[Key, Place], here: Place, cell: Cell) -> None:
    """Follow one record: who lives, and where their notes were said."""
    key = (here[2], cell.member)
    if cell.what in (CREATE, LINK, LINK_UNSET):
        assert key not in notes, f"{here}: {cell} creates a key that is there"
        assert cell.other is None or cell.other in moved, f"{here}: {cell} comes from nowhere"
        notes[key] = moved[cell.other] if cell.what == LINK_UNSET and cell.other else here
    elif cell.what in (UPDATE, UNSET, DELETE, NEGATIVE):
        assert key in notes, f"{here}: {cell} is about a key that is not there"
        if cell.what == UPDATE:
            notes[key] = here
        elif cell.what == DELETE:
            del notes[key]


def _noted(cell: Cell, source: Place | None, turn: int) -> Cell:
    return cell if source is None else replace(cell, note=(turn - source[0], source[1], source[2]))

"""What is wrong with contract files: every fault with its place and its remedy, all of them reported together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Place = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Fault:
    """One fault of one contract file: where it is, what is wrong and what to write instead."""

    file: str
    line: int  # 1 is the first; 0: the file as a whole
    path: str  # such as schema[0].properties[2].physicalType
    message: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        inside = f" {self.path}:" if self.path else ""
        end = "" if self.remedy.endswith("?") else "."
        return f"{place}:{inside} {self.message}. {self.remedy}{end}"


class ContractError(Exception):
    """Contracts that cannot be used; `faults` holds every fault of every file, in file and line order."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(set(faults)))
        super().__init__(self.faults)

    def __str__(self) -> str:
        files = len({fault.file for fault in self.faults})
        head = f"{len(self.faults)} fault(s) in {files} contract file(s):"
        return "\n".join([head, *(f"  {fault}" for fault in self.faults)])


@dataclass
class Faults:
    """The faults found so far in one file, whose lines are known."""

    file: str
    lines: Mapping[Place, int] = field(default_factory=dict)
    found: list[Fault] = field(default_factory=list)

    def add(self, place: Place, message: str, remedy: str) -> None:
        """Note a fault at a place of the document; a place that is not there takes the line of what should hold it."""
        self.found.append(Fault(self.file, self.line(place), written(place), message.rstrip("."), remedy.rstrip(".")))

    def line(self, place: Place) -> int:
        """Give the line of the innermost part of the place that the file holds."""
        for end in range(len(place), -1, -1):
            if place[:end] in self.lines:
                return self.lines[place[:end]]
        return 0


def written(place: Place) -> str:
    """Write a place the way people do: schema[0].properties[2].physicalType."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text

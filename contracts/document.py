"""YAML as plain values plus the line of each: what is needed to point at a fault."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from contracts.faults import ContractError, Fault, Faults, Place

MAX_NODES = 200_000  # of one contract, aliases expanded: far above any real one, far below what fills a memory


@dataclass(frozen=True)
class Document:
    """One YAML file: its value, and the line where each part of it begins."""

    file: str
    value: Any
    lines: Mapping[Place, int]


class _Loader(yaml.SafeLoader):
    """YAML's safe types, but for dates and times, which stay text: ODCS writes them as strings."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_document(path: Path) -> Document:
    """Read one YAML file; raises ContractError when it is not there or not YAML."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _refusal(
            str(path), 0, f"the file cannot be read ({error.strerror})", "Check its path and rights"
        ) from None
    return parse_document(content, str(path))


def parse_document(content: bytes | str, file: str) -> Document:
    """Parse one YAML document with the line of each value; raises ContractError when it is not one."""
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise _refusal(file, 0, "the file is empty", "Write a contract; docs/contracts.md shows a complete one")
        walk = _Walk(loader, Faults(file))
        value = walk.value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        raise _refusal(file, line, f"this is not valid YAML: {error.problem}", "Correct the YAML here") from None
    except (UnicodeDecodeError, yaml.YAMLError):
        raise _refusal(file, 0, "this is not UTF-8 text that YAML allows", "Save the file as UTF-8") from None
    except RecursionError:
        raise _refusal(file, 0, "the YAML is nested too deeply", "A contract needs about ten levels") from None
    except (ValueError, OverflowError):
        raise _refusal(file, 0, "a value of the YAML cannot be read", "Put odd values into quotes") from None
    if walk.faults.found:
        raise ContractError(walk.faults.found)
    return Document(file, value, walk.faults.lines)


class _Walk:
    """One pass over YAML nodes that keeps lines and refuses what plain values cannot hold."""

    def __init__(self, loader: _Loader, faults: Faults) -> None:
        self.loader = loader
        self.lines: dict[Place, int] = {}
        faults.lines = self.lines
        self.faults = faults
        self.open: set[int] = set()

    def value(self, node: yaml.Node, place: Place) -> Any:
        self.lines.setdefault(place, node.start_mark.line + 1)
        if len(self.lines) > MAX_NODES:
            raise _refusal(self.faults.file, 0, "the file is too large for a contract", "Repeat less of it by aliases")
        if isinstance(node, yaml.ScalarNode):
            return self.loader.construct_object(node, deep=True)
        if id(node) in self.open:
            self.faults.add(place, "an alias stands inside its own anchor", "Write the value out")
            return None
        self.open.add(id(node))
        value = self._mapping(node, place) if isinstance(node, yaml.MappingNode) else self._sequence(node, place)
        self.open.discard(id(node))
        return value

    def _sequence(self, node: yaml.Node, place: Place) -> list[Any]:
        return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[Hashable, Any]:
        self.loader.flatten_mapping(node)
        result: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                self.lines.setdefault(place, key_node.start_mark.line + 1)
                self.faults.add(place, "a name in this mapping is not a text", "Write `name: value`")
                continue
            inner = (*place, key)
            if key in result:
                self.lines[inner] = key_node.start_mark.line + 1
                self.faults.add(inner, f"{key!r} is written twice", "Keep one of them")
            self.lines[inner] = key_node.start_mark.line + 1
            result[key] = self.value(value_node, inner)
        return result


def _refusal(file: str, line: int, message: str, remedy: str) -> ContractError:
    return ContractError([Fault(file, line, "", message, remedy)])

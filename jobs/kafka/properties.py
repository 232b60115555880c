"""Java properties files, read as the Kafka clients read them (java.util.Properties.load)."""

from __future__ import annotations

import re
from collections.abc import Iterator

_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_NAMED = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_PAIR = re.compile(r"((?:\\.|[^\\=:\s])*)[ \t\f]*[=:]?[ \t\f]*(.*)", re.DOTALL)


def parse_properties(text: str) -> dict[str, str]:
    """Give names and values of a properties file: comments, continued lines and escapes as in Java."""
    pairs = (_PAIR.fullmatch(line) for line in _logical_lines(text))
    return {_plain(pair[1]): _plain(pair[2]) for pair in pairs if pair}


def _logical_lines(text: str) -> Iterator[str]:
    """Give the lines that hold a pair, those that end in an odd number of backslashes joined with the next."""
    joined = ""
    for line in text.splitlines():
        stripped = line.lstrip(" \t\f")
        if not joined and (not stripped or stripped[0] in "#!"):
            continue
        joined += stripped
        if (len(joined) - len(joined.rstrip("\\"))) % 2:
            joined = joined[:-1]
            continue
        yield joined
        joined = ""
    if joined:
        yield joined


def _plain(text: str) -> str:
    return _ESCAPE.sub(_unescape, text)


def _unescape(found: re.Match[str]) -> str:
    escaped = found[1]
    if len(escaped) > 1:
        return chr(int(escaped[1:], 16))
    return _NAMED.get(escaped, escaped)

"""docs/benchmarks.md: one generated section a benchmark, so that running one again replaces only its own."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from jobs.stack.jars import PROJECT, java

DOCUMENT = PROJECT / "docs" / "benchmarks.md"
GIB = 2**30
PACKAGES = ("apache-flink", "pyarrow", "deltalake", "polars", "confluent-kafka", "orjson", "fastavro")
OPENING = """\
# Benchmarks

`make bench` measures everything here and rewrites this page; `python -m tests.bench --only NAME` rewrites one section.
The records are Debezium change events of a customers table (tests/bench/records.py). Every run uses a real Kafka
broker, a real Flink cluster and real Delta tables on the same machine; the load is written before the job starts unless
a section says otherwise. Steady state is from the first Delta commit to the last full one; start-up is shown apart.
"""


@dataclass(frozen=True)
class Section:
    """What one benchmark found: a table, and sentences below it."""

    name: str
    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: Sequence[str] = ()
    picture: str | None = None  # an SVG that is written beside the page

    @property
    def picture_name(self) -> str:
        """Give the picture's file name."""
        return f"benchmarks-{self.name}.svg"

    def to_markdown(self) -> str:
        """Give the section between its marks."""
        table = [self.header, tuple("---" for _ in self.header), *self.rows]
        lines = ["| " + " | ".join(row) + " |" for row in table]
        facts = f"{datetime.now(UTC):%Y-%m-%d}, {machine()}"
        notes = [f"\n{note}" for note in self.notes]
        picture = [] if self.picture is None else ["", f"![{self.title}]({self.picture_name})"]
        body = "\n".join([f"## {self.title}", "", *lines, *picture, *notes, "", f"*{facts}*"])
        return f"{_begin(self.name)}\n{body}\n{_end(self.name)}"

    def show(self, console: Console) -> None:
        """Print the table and the notes."""
        table = Table(*self.header, title=self.title, title_justify="left")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)
        for note in self.notes:
            console.print(note, highlight=False)


def machine() -> str:
    """Give what the figures depend on: cores, memory and versions; nothing that says whose machine it is."""
    memory = psutil.virtual_memory().total / 2**30
    said = subprocess.run([java(), "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "([^"]+)"', said)
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}, Java {found[1] if found else '?'}, {packages}"
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def write(section: Section, document: Path = DOCUMENT) -> None:
    """Put a section into the page, in the place of its earlier version if there is one."""
    text = document.read_text(encoding="utf-8") if document.exists() else OPENING
    made = section.to_markdown()
    old = re.compile(re.escape(_begin(section.name)) + r".*?" + re.escape(_end(section.name)), re.DOTALL)
    text = old.sub(lambda _: made, text) if old.search(text) else f"{text.rstrip()}\n\n{made}\n"
    document.write_text(text, encoding="utf-8")
    if section.picture is not None:
        document.with_name(section.picture_name).write_text(section.picture, encoding="utf-8")


def rate_text(value: float) -> str:
    """Give a rate as the tables show it."""
    return f"{value:,.0f}"


def _begin(name: str) -> str:
    return f"<!-- begin {name}: written by tests/bench -->"


def _end(name: str) -> str:
    return f"<!-- end {name} -->"

"""The page of results: one section is replaced, the others stay."""

from __future__ import annotations

from pathlib import Path

from tests.bench.endtoend import merged
from tests.bench.report import Section, write


def test_running_one_benchmark_again_replaces_only_its_section(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    for name, value in (("a", "old"), ("b", "kept"), ("a", "new")):
        write(Section(name, name.title(), ("what",), [(value,)]), page)
    text = page.read_text(encoding="utf-8")
    assert "| new |" in text and "| kept |" in text and "| old |" not in text
    assert text.count("begin a:") == 1 and text.index("begin a:") < text.index("begin b:")


def test_records_of_several_tables_add_up_over_time() -> None:
    assert merged([[(1.0, 10), (3.0, 30)], [(2.0, 5)]]) == [(1.0, 10), (2.0, 15), (3.0, 35)]

"""The page of results: one section is replaced, the others stay."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from tests.bench.curve import curve
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


def test_a_picture_stands_beside_the_page_and_in_it(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    drawn = curve({"current & more": [(1e6, 0.1), (2e7, 0.3)]}, "rows", "s")
    write(Section("costs", "Costs", ("what",), [("1",)], picture=drawn), page)
    assert "![Costs](benchmarks-costs.svg)" in page.read_text(encoding="utf-8")
    svg = ElementTree.fromstring((tmp_path / "benchmarks-costs.svg").read_text(encoding="utf-8"))
    line = svg.find("{http://www.w3.org/2000/svg}polyline")
    assert line is not None and len(line.attrib["points"].split()) == 2

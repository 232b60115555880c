"""The layers import only downwards, and keep out what they must never touch (docs/architecture.md, layer table)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("contracts", "udfs", "lakehouse", "sql", "jobs")
MAY_IMPORT = {
    "contracts": set(),
    "udfs": {"contracts"},
    "lakehouse": {"contracts"},
    "sql": set(),
    "jobs": {"contracts", "udfs", "lakehouse", "sql"},
}
NEVER = {
    "contracts": {"pyflink", "deltalake", "kafka", "httpx"},
    "udfs": {"pyflink", "deltalake", "kafka", "httpx", "obstore", "socket", "requests"},
    "lakehouse": {"pyflink", "kafka", "httpx"},
    "sql": {"pyflink", "deltalake", "kafka"},
}


def modules(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_the_layers_below_it(layer: str) -> None:
    assert modules(layer), f"{layer}/ holds no modules"
    for path in modules(layer):
        above = (imported(path) & set(LAYERS)) - MAY_IMPORT[layer] - {layer}
        assert not above, f"{path.relative_to(ROOT)} imports {sorted(above)}"


@pytest.mark.parametrize("layer", sorted(NEVER))
def test_a_layer_keeps_out_what_it_must_never_touch(layer: str) -> None:
    for path in modules(layer):
        wrong = imported(path) & NEVER[layer]
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("layer", LAYERS)
def test_no_module_has_a_name_that_hides_what_it_does(layer: str) -> None:
    for path in modules(layer):
        assert path.stem not in {"utils", "util", "helpers", "helper", "common", "manager", "handler", "misc"}, path


@pytest.mark.parametrize("layer", LAYERS)
def test_every_public_function_and_class_says_what_it_gives(layer: str) -> None:
    silent = []
    for path in modules(layer):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not silent, "\n".join(silent)

"""Imports run down. One list, one rule: a package may import only what stands below it, wherever the import is written."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Top first. Packages on one line do not know each other.
LAYERS = (
    {"harness/cli"},
    {"harness/testing"},
    {"harness/api"},
    {"harness/tuning"},
    {"harness/execution"},
    {"methods", "datasets"},  # the harness reaches these by name, through core/registry.py, never by import
    {"harness/report", "harness/training"},
    {"harness/leaderboard", "harness/method"},
    {"harness/evaluation", "harness/runs"},
    {"harness/records", "harness/data", "harness/distributed"},
    {"harness/core"},
)
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}


def package(path: str) -> str | None:
    return next((name for name in LEVEL if path.startswith(f"{name}/")), None)


def imports(file: Path):
    """Every import of this project in a file: at the top, inside functions and under TYPE_CHECKING alike."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("subnetbench."):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("subnetbench.")]
        else:
            continue
        for name in names:
            yield node.lineno, name.removeprefix("subnetbench.").replace(".", "/")


FILES = [f for d in ("harness", "methods", "datasets") for f in sorted((ROOT / d).rglob("*.py"))]


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_run_down(file):
    here = package(str(file.relative_to(ROOT)))
    if here is None:  # harness/__init__.py, the face
        return
    up = [
        f"line {line}: {there}"
        for line, path in imports(file)
        if (there := package(f"{path}/")) and there != here and LEVEL[there] <= LEVEL[here]
    ]
    assert not up, f"{here} stands below, or beside, what it imports: {up}"


def test_no_loose_modules():
    loose = [p.name for p in (ROOT / "harness").glob("*.py") if p.name != "__init__.py"]
    assert not loose, "every module of the harness has a package"


def test_every_package_has_a_layer():
    folders = {f"harness/{path.name}" for path in (ROOT / "harness").iterdir() if (path / "__init__.py").exists()}
    assert folders | {"methods", "datasets"} == set(LEVEL)


def test_no_relative_imports():
    """They would go unseen here."""
    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not found


def test_late_imports_say_why():
    """An import of this project inside a function keeps a listing from importing torch, and its line says so."""
    silent = []
    for file in FILES:
        lines = file.read_text().splitlines()
        functions = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.FunctionDef)]
        late = {n.lineno for f in functions for n in ast.walk(f) if isinstance(n, ast.ImportFrom | ast.Import)}
        ours = {line for line, _ in imports(file)}
        silent += [f"{file.relative_to(ROOT)}:{n}" for n in sorted(late & ours) if "# late: " not in lines[n - 1]]
    assert not silent, f"these imports inside functions do not say why they are not at the top: {silent}"


def test_no_circles():
    """Not even between two modules of one package, and not through imports inside functions."""
    from graphlib import TopologicalSorter

    modules = {str(f.relative_to(ROOT).with_suffix("")) for f in FILES if f.name != "__init__.py"}
    graph = {}
    for file in FILES:
        here = str(file.relative_to(ROOT).with_suffix(""))
        named = {path for _, path in imports(file)}
        graph[here] = {m for path in named for m in (path, path.rpartition("/")[0]) if m in modules and m != here}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle

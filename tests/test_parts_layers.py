"""Methods import their parts and the contract, parts import the families below theirs, and so do data sets.

One list, one rule: a family may import only what stands below it; families on one line do not know each other.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Top first.
FAMILIES = (
    {"capacity"},
    {"masks", "text_image"},
    {"bases"},
    {"losses"},
    {"networks", "views", "vit"},
    {"optim"},
)
LEVEL = {name: level for level, names in enumerate(FAMILIES) for name in names}
METHOD_CONTRACT = ("harness.method",)
DATASET_CONTRACT = ("harness.data", "harness.method")


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name, without the project's, of every import of this project, wherever it is written."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno} imports relatively"
            if (node.module or "").startswith("subnetbench"):
                for alias in node.names:
                    yield node.lineno, f"{node.module}.{alias.name}".removeprefix("subnetbench.")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("subnetbench"):
                    yield node.lineno, alias.name.removeprefix("subnetbench.")


def comes_from(name: str, packages: tuple[str, ...]) -> bool:
    """Whether an imported name is one that a package itself exports, not one of its modules."""
    return any(name.rpartition(".")[0] == package for package in packages)


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def label(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", files("methods"), ids=label)
def test_methods_and_parts_import_what_a_plugin_could(file):
    wrong = []
    folders = file.relative_to(ROOT).parts[:-1]
    own = folders[2] if len(folders) > 2 else None
    for line, name in imported(file):
        if name.startswith("methods.parts."):
            family = name.split(".")[2]
            allowed = own is None or family == own or LEVEL[family] > LEVEL[own]
        else:
            allowed = comes_from(name, METHOD_CONTRACT)
        if not allowed:
            wrong.append(f"line {line}: {name}")
    assert not wrong, f"{label(file)} imports another method, a family beside or above its own, or the harness: {wrong}"


def test_every_part_has_a_family():
    parts = ROOT / "methods" / "parts"
    assert {path.name for path in parts.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(LEVEL)
    assert [path.name for path in parts.glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("file", files("datasets"), ids=label)
def test_data_sets_import_their_parts_and_the_contract(file):
    wrong = [
        f"line {line}: {name}"
        for line, name in imported(file)
        if not name.startswith("datasets.parts.") and not comes_from(name, DATASET_CONTRACT)
    ]
    assert not wrong, f"{label(file)} imports another data set, or what the contract does not export: {wrong}"

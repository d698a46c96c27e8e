"""Pages say what is so: variables, modules and files that they name exist, and what is generated is current."""

import importlib.util
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from subnetbench.harness.cli.app import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
# What was true once may stay in the history.
PRESENT = [page for page in PAGES if page.name != "CHANGELOG.md"]
SOURCES = [path for folder in ("harness", "methods", "datasets", "tests") for path in (ROOT / folder).rglob("*.py")]
VARIABLE = re.compile(r"SUBNETBENCH_[A-Z_]+\b(?!_)")


@pytest.fixture(scope="module")
def hooks() -> dict[str, Any]:
    """The functions that generate pages of the site."""
    return runpy.run_path(str(DOCS / "tools" / "site_hooks.py"))


def test_every_environment_variable_has_a_line() -> None:
    used = {name for path in [*SOURCES, ROOT / "Makefile"] for name in VARIABLE.findall(path.read_text())}
    described = re.findall(r"^\| `(SUBNETBENCH_[A-Z_]+)` \|", (DOCS / "environment.md").read_text(), re.MULTILINE)
    assert sorted(described) == sorted(used)


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_and_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    missing = [name for name in re.findall(r"\bsubnetbench(?!\.github)(?:\.\w+)+", text) if not is_there(name)]
    paths = re.findall(r"\b((?:harness|methods|datasets|tests|docs|sweeps|results/published)/[\w./-]*\w)", text)
    missing += [path for path in paths if not exists(path)]
    assert missing == []


def is_there(dotted: str) -> bool:
    """Whether a module, or a name in a module, exists. Files are looked for, so that nothing is imported."""
    parts = dotted.split(".")[1:]
    for length in range(len(parts), -1, -1):
        base = ROOT.joinpath(*parts[:length])
        source = base.with_suffix(".py") if length and base.with_suffix(".py").exists() else base / "__init__.py"
        if source.exists():
            left = parts[length:]
            return not left or re.search(rf"\b{re.escape(left[0])}\b", source.read_text()) is not None
    return False


def exists(path: str) -> bool:
    """Whether a path exists as it is written, as a module without its suffix, or as the beginning of a pattern."""
    if path.endswith("_"):
        return any(ROOT.glob(f"{path}*"))
    return (ROOT / path).exists() or (ROOT / f"{path}.py").exists()


def test_the_walk_of_a_run_names_what_exists() -> None:
    """In docs/architecture.md a file is followed by the functions and classes of it that are called."""
    text = " ".join((DOCS / "architecture.md").read_text().split())
    walked = re.findall(r"`(harness/[\w/]+\.py)` ((?:`[\w.]+`(?:, )?)+)", text)
    assert len(walked) > 15
    missing = [
        f"{path}: {part}"
        for path, names in walked
        for part in re.findall(r"\w+", names)
        if not re.search(rf"\b(?:def|class) {part}\b", (ROOT / path).read_text())
    ]
    assert missing == []


def test_pages_that_the_code_names_exist() -> None:
    named = {name for path in SOURCES for name in re.findall(r"\bdocs/[\w/]+\.\w+", path.read_text())}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_pictures_of_the_layers_are_current() -> None:
    drawn = runpy.run_path(str(DOCS / "tools" / "draw_layers.py"))["pictures"]()
    assert len(drawn) == 2
    assert [path.name for path, picture in drawn.items() if path.read_text() != picture] == [], (
        "run docs/tools/draw_layers.py"
    )


def test_the_command_line_is_described_as_a_whole(hooks: dict[str, Any]) -> None:
    page = hooks["command_reference"]()
    root = typer.main.get_command(app)
    commands = getattr(root, "commands", {})
    assert [name for name in commands if f"\n## subnetbench {name}\n" not in page] == []
    for name, command in commands.items():
        section = page.partition(f"\n## subnetbench {name}\n")[2].partition("\n## ")[0]
        options = [option for parameter in command.params for option in parameter.opts if option.startswith("-")]
        assert [option for option in options if f"`{option}`" not in section] == []


def test_every_package_has_a_reference(hooks: dict[str, Any]) -> None:
    packages = {f"harness.{path.parent.name}" for path in (ROOT / "harness").glob("*/__init__.py")}
    assert packages - {"harness.cli"} | {"methods.parts", "datasets.parts"} == set(hooks["API"])


def test_examples_in_docstrings_become_code() -> None:
    spec = importlib.util.spec_from_file_location("docstring_examples", DOCS / "tools" / "docstring_examples.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = "Adds.\n\n>>> add(1,\n...     2)\n3\n\nMore."
    assert module.fenced(text) == "Adds.\n\n```pycon\n>>> add(1,\n...     2)\n3\n```\n\nMore."
    assert module.fenced("Adds.\n\nExample:\n    >>> add(1, 2)") == "Adds.\n\nExamples:\n    >>> add(1, 2)"


def test_the_site_builds(tmp_path: Path) -> None:
    """With links, anchors and cross-references checked: a warning is an error."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "reference" / "harness_method" / "index.html").read_text()
    assert 'id="subnetbench.harness.method.TrainableMethod' in page

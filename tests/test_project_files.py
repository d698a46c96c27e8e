"""Files that tools outside this repository read, checked against what those tools expect."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import subnetbench

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_listed() -> None:
    """`pyproject.toml` lists packages by hand, because the repository root is the package itself."""
    folders = {path.parent for top in ("harness", "methods", "datasets") for path in (ROOT / top).rglob("*.py")}
    names = {"subnetbench"} | {".".join(("subnetbench", *path.relative_to(ROOT).parts)) for path in folders}
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    assert sorted(names) == sorted(listed)


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("vendor.github-workflows", ".github/workflows/*.yml"),
        ("custom.github-workflows-require-timeout", ".github/workflows/*.yml"),
        ("vendor.citation-file-format", "CITATION.cff"),
    ],
)
def test_published_schemas_hold(schema: str, pattern: str) -> None:
    files = list(ROOT.glob(pattern))
    assert files
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_citation_is_of_this_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == subnetbench.__version__


def test_workflows_cover_the_supported_versions_of_python() -> None:
    matrix = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text())["jobs"]["tests"]["strategy"]["matrix"]
    classifiers = re.findall(r"Python :: (3\.\d+)", "\n".join(PYPROJECT["project"]["classifiers"]))
    assert matrix["python"] == classifiers


def test_commands_of_workflows_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    parts = (ROOT / "tests/run_all.py").read_text()
    workflow = (ROOT / ".github/workflows/checks.yml").read_text()
    for targets in re.findall(r"run: make (.+)", workflow):
        for target in targets.split():
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for part in re.findall(r"run_all\.py (\w+)", workflow):
        assert f'Part("{part}"' in parts or f'"{part}",' in parts, part


def test_libraries_with_an_adapter_have_upper_bounds() -> None:
    """Their private API is touched, which any minor version may change."""
    bounds = {re.split(r"[<>=]", entry)[0]: entry for entry in PYPROJECT["project"]["dependencies"]}
    for library in ("accelerate", "optuna", "pytorch-metric-learning", "submitit"):
        assert ",<" in bounds[library], library

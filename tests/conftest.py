"""Markers of the tiers, and the made-up results that the report, its page and the published folder are tested with."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent
# Seconds for each results folder and task: tests of these baselines switch them on.
os.environ["SUBNETBENCH_FROZEN_BASELINES"] = "off"
# A folder of `tests` is a tier; tests in all other folders, and beside this file, are unit tests.
TIERS = ("benchmarks", "browser", "conformance", "docs", "end_to_end", "golden", "packaging", "slurm")


def tier_of(path: Path) -> str:
    """The tier of the test file `path`: the name of its marker."""
    folder = path.relative_to(ROOT).parts[0]
    return folder if folder in TIERS else "unit"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-run", action="store_true", help="run all runs of each published sweep, not one of each kind"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives each test the marker of its tier, so that nobody has to write it (and nobody can forget it)."""
    for item in items:
        tier = tier_of(item.path)
        # `golden` also carries the cases that a test asks for: one of those is not to be hidden.
        if item.get_closest_marker(tier) is None:
            item.add_marker(tier)


@pytest.fixture(scope="session")
def samples() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report_samples", Path(__file__).with_name("report_samples.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

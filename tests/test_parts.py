"""No tier of tests is forgotten by the test command, nor a marker by the configuration."""

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).parent


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"checked_{name}", TESTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_tier_has_a_marker() -> None:
    options = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    markers = {line.partition(":")[0].partition("(")[0] for line in options["markers"]}
    assert set(load("conftest").TIERS) | {"unit", "slow"} == markers


def test_every_tier_is_part_of_the_test_command() -> None:
    """A folder is either run by the part of unit tests, or left out there and named in another part."""
    run_all = load("run_all")
    left_out = {option.removeprefix("--ignore=tests/") for option in run_all.UNCOLLECTED}
    commands = [" ".join(command) for part in run_all.PARTS for command in part.commands]
    assert left_out == set(load("conftest").TIERS) - {"golden", "benchmarks"}
    assert [folder for folder in left_out if not any(f" tests/{folder}" in command for command in commands)] == []

"""The command of a run, typed into the program, is the same run."""

import itertools
import shlex
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subnetbench.harness.cli.common import assignments
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.runs.command import command_of, run_command
from subnetbench.harness.runs.spec import RunSpec


def _typed(command: str) -> RunSpec:
    """What `subnetbench run` makes of a command."""
    program, verb, method, dataset, *words = shlex.split(command)
    assert (program, verb) == ("subnetbench", "run")
    options: dict[str, list[str]] = {}
    for name, value in zip(words[::2], words[1::2], strict=True):
        options.setdefault(name, []).append(value)
    compute = {name: options[f"--{name}"][0] for name in ("device", "precision") if f"--{name}" in options}
    numbers = {name: int(options[f"--{name}"][0]) for name in ("processes", "threads") if f"--{name}" in options}
    return resolve(
        method,
        dataset,
        config=assignments(options.get("--set"), "--set"),
        data=assignments(options.get("--data"), "--data"),
        task=options["--task"][0],
        seed=int(options["--seed"][0]),
        compute=compute | numbers,
        inputs=assignments(options.get("--input"), "--input"),
    )


@pytest.mark.parametrize("method", ["dense", "edge_popup", "triplet", "continuous_sparsification"])
def test_a_command_means_the_same_run(method: str) -> None:
    spec = resolve(method, "emoji", config={"epochs": 7, "lr": 1e-5}, seed=3, compute={"processes": 2, "device": "cpu"})
    assert _typed(run_command(spec.model_dump(mode="json"))).run_id == spec.run_id


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), json_values, max_size=4))
def test_any_value_comes_back(config: dict[str, Any]) -> None:
    spec = {"method": "m", "dataset": "d", "task": "t", "seed": 0, "config": config, "data": {}, "compute": {}}
    words = shlex.split(run_command(spec))
    given_ = [value for name, value in itertools.pairwise(words) if name == "--set"]
    assert assignments(given_, "--set") == config


def test_a_record_without_a_spec_has_no_command() -> None:
    for text in ("", "{}", "[]", "null", '{"method": 1}', "[" * 100_000):
        assert command_of(text) == ""

"""Every published sweep file, run: one step of its runs on miniatures of their data sets, with stand-in weights.

The file is expanded as it is written; then each run is made small by `less`, and carried out in this process with what
it starts from. By default each file runs once for each method and family of networks, and for each data set; with
`--every-run` all of its runs do.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from subnetbench.harness.execution.run import execute
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.execution.sweep_file import read_sweep
from subnetbench.harness.method.resolve import network_of, resolve
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import InputRef, RunSpec
from subnetbench.methods.parts.networks.retrieval import retrieval_backbone

FILES = sorted((Path(__file__).parents[2] / "sweeps" / "published").glob("*.yaml"))
MOST = {
    "epochs": 1,
    "batch_size": 12,
    "rewind_epoch": 0,
    "rounds": 2,
    "views": 2,
    "update_every": 1,
    "query_limit": 20,
    "pool_limit": 20,
    "recalibration_images": 8,
    "calibration_images": 16,
    "calibration_batch": 8,
    "small_world_queries": 20,
    "timed_queries": 1,
    "validation_size": 52,
    "held_out": 20,
    "samples_per_class": 4,
}
"""The most that a run here has of each."""
SIDES = ("image_size", "teacher_image_size")


def less(spec: RunSpec, seen: dict[str, RunSpec]) -> RunSpec:
    """The same run with a seventh of the side in pixels, one step, and no more than `MOST`; inputs likewise."""
    if spec.run_id not in seen:
        inputs = {
            role: [_less_input(item, seen) for item in given] if isinstance(given, list) else _less_input(given, seen)
            for role, given in spec.inputs.items()
        }
        seen[spec.run_id] = resolve(
            spec.method,
            spec.dataset,
            config={**_smaller(spec.config), "limit_steps": 1},
            data=_smaller(spec.data),
            task=spec.task,
            seed=spec.seed,
            compute={"device": "cpu", "threads": 1},
            inputs=inputs,
        )
    return seen[spec.run_id]


def _less_input(given: RunSpec | InputRef, seen: dict[str, RunSpec]) -> RunSpec | InputRef:
    return less(given, seen) if isinstance(given, RunSpec) else given


def _smaller(config: Mapping[str, Any]) -> dict[str, Any]:
    smaller = dict(config)
    for name, most in MOST.items():
        if smaller.get(name) is not None:
            smaller[name] = min(smaller[name], most)
    for name in SIDES:
        if smaller.get(name) is not None:
            smaller[name] //= 7
    if "image_size" in smaller and smaller["image_size"] is None:
        smaller["image_size"] = 16
    return smaller


def chosen(specs: Iterable[RunSpec]) -> Iterator[RunSpec]:
    """The first run of each method and family of networks (names without numbers), and of each data set."""
    seen: set[tuple[str, ...]] = set()
    for spec in specs:
        kinds = {(spec.method, re.sub(r"\d", "", network_of(spec))), (spec.dataset,)}
        if kinds - seen:
            yield spec
        seen |= kinds


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_runs_of_a_published_sweep_finish(
    file: Path, miniature: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    specs = read_sweep(file).expand()
    seen: dict[str, RunSpec] = {}
    settings = RunSettings(trackers=(), data_root=miniature / "data")
    failures = {}
    for spec in specs if request.config.getoption("--every-run") else list(chosen(specs)):
        small = less(spec, seen)
        for each in [*small.dependencies(), small]:
            if execute(each, tmp_path, settings) != "finished":
                failures[spec.run_id] = RunFolder(tmp_path, each.run_id).failure()
    assert not failures


def _all_runs(specs: Iterable[RunSpec]) -> Iterator[RunSpec]:
    for spec in specs:
        yield from spec.dependencies()
        yield spec


def test_networks_of_retrieval_sweeps_are_built_at_their_published_sizes() -> None:
    """The thin networks above stand for these. On the meta device nothing is computed, but shapes have to fit."""
    specs = _all_runs(spec for file in FILES for spec in read_sweep(file).expand())
    built = {(s.config["network"], s.config["image_size"]) for s in specs if s.task == "retrieval"}
    for name, size in sorted(built):
        with torch.device("meta"):
            backbone = retrieval_backbone(name, image_size=size)
        assert len(backbone.map_shape) == 3
    assert len(built) > 10

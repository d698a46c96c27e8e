"""Runs that take seconds, in this process: what the conformance suite and tests of methods are made of."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from subnetbench.harness.distributed.world import World, open_world
from subnetbench.harness.execution.run import execute, load_data
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.method.base import TrainableMethod
from subnetbench.harness.method.context import Context
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.training.monitor import Monitor
from subnetbench.harness.training.spending import Spending
from subnetbench.harness.training.train import train
from subnetbench.harness.training.trained_run import open_inputs

DATASET = "emoji"
SHORT = {"epochs": 2, "batch_size": 16, "limit_steps": 2}

Trained = tuple[TrainableMethod[Any], torch.nn.ModuleDict, Context]
Validate = Callable[..., dict[str, float]]
"""What stands in for a method's `validate`."""


def short_spec(method: str, *, seed: int = 0, processes: int = 1) -> RunSpec:
    """A run of a method that takes seconds: its own `tiny` config on the embedded emoji."""
    cls = get_method(method)
    return resolve(
        method,
        DATASET,
        config={**SHORT, **cls.tiny},
        seed=seed,
        compute={"processes": processes, "device": "cpu"},
        inputs=cls.tiny_inputs,
    )


def train_inputs(spec: RunSpec, folder: Path) -> None:
    """Run what a run starts from, in this process, with results below `folder`."""
    for each in spec.dependencies():
        execute(each, folder, RunSettings(trackers=()))


@contextmanager
def train_here(
    spec: RunSpec,
    results: Path,
    *,
    inputs: Path,
    stop_after: int | None = None,
    validate: Validate | None = None,
    spent: list[Spending] | None = None,
) -> Iterator[Trained]:
    """Train a spec in this process, outside of `execute`, so that its modules can be looked at.

    Args:
        spec: What is trained.
        results: Folder for the run.
        inputs: Results folder with the finished runs that it starts from.
        stop_after: Interrupt it when it asks for the so-manieth time whether it is to stop.
        validate: Replaces the method's own validation.
        spent: What it spent is appended.
    """
    folder = RunFolder(results, spec.run_id)
    folder.create(spec.model_dump_json())
    world: World = open_world(spec.compute)
    polls = iter(range(10**9))
    monitor = Monitor(world, folder, stop_requested=lambda: stop_after is not None and next(polls) >= stop_after - 1)
    cls = get_method(spec.method)
    method: Any = cls(cls.Config.parse(spec.config))
    if validate is not None:
        method.validate = validate
    try:
        context = Context(
            spec=spec,
            data=load_data(spec, RunSettings().data_root),
            world=world,
            inputs=open_inputs(spec, inputs, world),
            cache=results / "cache",
            scratch=folder.path,
        )
        trained = train(method, context, monitor=monitor, folder=folder)
        if spent is not None:
            spent.append(trained.spending)
        yield method, trained.modules.eval(), context
    finally:
        world.close()

"""What a sweep will cost, from short measurements on this machine: device hours, wall time, disk, jobs.

Each distinct recipe (a run without its seed) is trained for a few steps, validated, evaluated once and forgotten. A
run of several processes is measured in one, and its steps are assumed to be shared out perfectly. Steps of later
stages are assumed to cost what those of the first do.
"""

import heapq
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from subnetbench.harness.artifacts import open_inputs, save_model
from subnetbench.harness.context import Context
from subnetbench.harness.data import on_device
from subnetbench.harness.execution import load_data
from subnetbench.harness.method import Progress, Stage, TrainableMethod
from subnetbench.harness.registry import get_method
from subnetbench.harness.run_folder import RunFolder
from subnetbench.harness.specs import RunSpec
from subnetbench.harness.training.checkpoints import modules_state, optimizers_state
from subnetbench.harness.training.loop import TrainingLoop
from subnetbench.harness.training.monitor import Interrupted, Monitor
from subnetbench.harness.world import World, open_world

WARM_UP_STEPS = 3


@dataclass(frozen=True)
class RunCost:
    """What one run of a recipe costs; seconds are wall time, sizes are bytes."""

    device: str
    steps: int
    seconds_per_step: float
    other_seconds: float
    kept_bytes: int
    checkpoint_bytes: int

    @property
    def seconds(self) -> float:
        """The whole run: data, building, training, validations, evaluation."""
        return self.steps * self.seconds_per_step + self.other_seconds


@dataclass(frozen=True)
class SweepCost:
    """What a sweep costs on a number of devices; `busy_seconds` are summed over the devices that runs hold."""

    runs: int
    wall_seconds: float
    busy_seconds: float
    gpu_seconds: float
    kept_bytes: int
    most_bytes: int


def measure(specs: Sequence[RunSpec], data_root: Path, *, seconds: float = 3.0) -> dict[str, RunCost]:
    """The cost of each distinct recipe among `specs` (inputs before the runs that need them), by config hash.

    `seconds` is how long each is trained for, after a few steps of warming up.
    """
    costs: dict[str, RunCost] = {}
    with tempfile.TemporaryDirectory(prefix="subnetbench-plan-") as folder:
        for spec in specs:
            if spec.config_hash in costs:
                continue
            for each in (*spec.dependencies(), spec):
                # What a run starts from has to be there, in the same seed, however little it was trained.
                if not RunFolder(Path(folder), each.run_id).model_file.exists():
                    costs[each.config_hash] = _measure_one(each, data_root, Path(folder), seconds)
    return costs


def combine(
    specs: Sequence[RunSpec], costs: Mapping[str, RunCost], slots: int, start_seconds: float = 0.0
) -> SweepCost:
    """The cost of all runs on `slots` devices, each run taking one for each of its processes.

    Runs start in order as soon as enough devices are free and their inputs are finished, which is what the
    launchers do. `start_seconds` is what starting a run's processes takes.
    """
    free = [0.0] * slots
    ends: dict[str, float] = {}
    busy = gpu = 0.0
    for spec in specs:
        cost = costs[spec.config_hash]
        width = min(spec.compute.processes, slots)
        taken = [heapq.heappop(free) for _ in range(width)]
        begin = max([*taken, *(ends.get(each.run_id, 0.0) for each in spec.dependencies())])
        seconds = cost.seconds + start_seconds
        ends[spec.run_id] = begin + seconds
        for _ in taken:
            heapq.heappush(free, begin + seconds)
        busy += seconds * spec.compute.processes
        gpu += seconds * spec.compute.processes if cost.device == "cuda" else 0.0
    kept = sum(costs[spec.config_hash].kept_bytes for spec in specs)
    at_once = sorted((costs[spec.config_hash].checkpoint_bytes for spec in specs), reverse=True)[:slots]
    return SweepCost(len(specs), max(ends.values(), default=0.0), busy, gpu, kept, kept + sum(at_once))


def start_seconds() -> float:
    """How long the processes of a run take to get going here: what every job of a cluster pays."""
    import subprocess
    import sys

    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", "import subnetbench.harness.launchers.preload"],
        check=True,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )
    return time.monotonic() - began


class _Stopwatch(Monitor):
    """Times the steps of a run and ends it when it has seen enough."""

    def __init__(self, world: World, seconds: float) -> None:
        super().__init__(world, None, stop_requested=self._seen_enough)
        self.budget = seconds
        self.times: list[float] = []
        self.first: Progress | None = None

    def heartbeat(self, stage: str, progress: Progress, *, force: bool = False) -> None:
        self.first = self.first or progress
        if not force:
            self.times.append(time.monotonic())

    def seconds_per_step(self) -> float:
        """The mean over the steps after warming up, or over all when there were no more."""
        start = min(WARM_UP_STEPS, len(self.times) - 1)
        count = len(self.times) - 1 - start
        if count > 0:
            return (self.times[-1] - self.times[start]) / count
        return 0.0

    def _seen_enough(self) -> bool:
        # A few steps beyond the warm-up, and the time that was allowed.
        enough = len(self.times) > 2 * WARM_UP_STEPS
        return enough and self.times[-1] - self.times[WARM_UP_STEPS] > self.budget


def _measure_one(spec: RunSpec, data_root: Path, folder: Path, seconds: float) -> RunCost:
    began = time.monotonic()
    compute = spec.compute.model_copy(update={"processes": 1})
    method_class = get_method(spec.method)
    method = method_class(method_class.Config.parse(spec.config))
    data = load_data(spec, data_root)
    # Its place in a launched world, if any, is not this measurement's.
    world = open_world(compute)
    try:
        watch = _Stopwatch(world, seconds)
        context = Context(
            spec=spec.model_copy(update={"compute": compute}),
            data=on_device(data, world.device),
            world=world,
            inputs=open_inputs(spec, folder, world),
            cache=folder / "cache",
            monitor=watch,
        )
        loop: TrainingLoop | None = None
        training = 0.0
        if isinstance(method, TrainableMethod):
            loop = TrainingLoop(method, context)
            training_began = time.monotonic()
            try:
                modules = loop.run()
            except Interrupted:
                modules = loop.modules
            training = time.monotonic() - training_began
        else:
            modules = method.train(context)
        steps, later = _the_rest(method, loop, context, watch)
        modules.eval()
        method.evaluate(modules, context)
        model = RunFolder(folder, spec.run_id).model_file
        save_model(model, method, modules, context, {})
        checkpoint = _bytes(modules_state(modules, method))
        if loop is not None:
            checkpoint = 2 * checkpoint + _bytes(optimizers_state(loop.optimizations))
        per_step = watch.seconds_per_step()
        # All but training, and what of training is no step: building, planning, first steps' extra time.
        once = time.monotonic() - began - training - later[0]
        overhead = max(training - per_step * len(watch.times), 0.0) if loop is not None else 0.0
        return RunCost(
            device=world.device.type,
            steps=steps,
            seconds_per_step=per_step / spec.compute.processes,
            other_seconds=once + overhead + later[1],
            kept_bytes=model.stat().st_size,
            checkpoint_bytes=checkpoint,
        )
    finally:
        world.close()


def _the_rest(
    method: Any, loop: TrainingLoop | None, context: Context, watch: _Stopwatch
) -> tuple[int, tuple[float, float]]:
    """All steps of a run; the seconds spent here, and those that planning epochs and validating will take."""
    if loop is None or watch.first is None:
        return 0, (0.0, 0.0)
    began = time.monotonic()
    stages: list[Stage] = method.stages(context)
    trained = next(stage for stage in stages if stage.epochs)
    planning_began = time.monotonic()
    list(method.plan_epoch(loop.modules, trained, 0, context))
    planning = time.monotonic() - planning_began
    loop.modules.eval()
    validating_began = time.monotonic()
    with torch.no_grad():
        method.validate(loop.modules, trained, context)
    validating = time.monotonic() - validating_began
    every = method.config.evaluate_every
    epochs = sum(stage.epochs for stage in stages)
    validations = sum(_validations(stage.epochs, every) for stage in stages)
    steps = epochs * watch.first.steps_per_epoch
    return steps, (time.monotonic() - began, epochs * planning + validations * validating)


def _validations(epochs: int, every: int | None) -> int:
    if not epochs:
        return 0
    return -(-epochs // every) if every else 1


def _bytes(state: Any) -> int:
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(_bytes(item) for item in state.values())
    if isinstance(state, list | tuple):
        return sum(_bytes(item) for item in state)
    return 0

"""What a sweep will cost, from short measurements on this machine: device hours, wall time, disk, jobs.

Each distinct recipe (a run without its seed) is trained for a few steps, validated, evaluated once and forgotten. A
run of several processes is measured in one, and its steps are assumed to be shared out perfectly. Steps of later
stages are assumed to cost what those of the first do.
"""

import heapq
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from subnetbench.harness.data.splits import on_device
from subnetbench.harness.distributed.world import World, open_world
from subnetbench.harness.execution.run import load_data
from subnetbench.harness.execution.scoring import final_scores
from subnetbench.harness.method.base import Method, TrainableMethod
from subnetbench.harness.method.context import Context
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.method.stages import Progress
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.provenance import Provenance
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.runs.spent import Spent
from subnetbench.harness.training.accounts import with_inputs
from subnetbench.harness.training.loop import TrainingLoop
from subnetbench.harness.training.monitor import Interrupted, Monitor
from subnetbench.harness.training.state import ModelState, optimizer_states
from subnetbench.harness.training.train import train
from subnetbench.harness.training.trained_run import TrainingTimes, open_inputs, save_model

WARM_UP_STEPS = 3


@dataclass(frozen=True)
class RunCost:
    """What one run of a recipe costs; seconds are wall time, sizes are bytes.

    `training_macs` are those of its own training, without its inputs; each epoch is taken to execute what the first does.
    """

    device: str
    steps: int
    seconds_per_step: float
    other_seconds: float
    kept_bytes: int
    checkpoint_bytes: int
    training_macs: float = 0.0

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
    training_macs: float = 0.0


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
    macs = sum(costs[spec.config_hash].training_macs for spec in specs)
    return SweepCost(len(specs), max(ends.values(), default=0.0), busy, gpu, kept, kept + sum(at_once), macs)


def start_seconds() -> float:
    """How long the processes of a run take to get going here: what every job of a cluster pays."""
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", "import subnetbench.harness.execution.preload"],
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
    single = spec.model_copy(update={"compute": spec.compute.model_copy(update={"processes": 1})})
    data = load_data(spec, data_root)
    # The rank of a launched process, if any, is not this measurement's.
    world = open_world(single.compute)
    try:
        inputs = open_inputs(spec, folder, world)
        context = Context(
            spec=single, data=on_device(data, world.device), world=world, inputs=inputs, cache=folder / "cache"
        )
        return _measure_in(context, spec, folder, _Stopwatch(world, seconds), began)
    finally:
        world.close()


def _measure_in(context: Context, spec: RunSpec, folder: Path, watch: _Stopwatch, began: float) -> RunCost:
    method_class = get_method(spec.method)
    method = method_class(method_class.Config.parse(spec.config))
    training_began = time.monotonic()
    loop, modules, calibrating = _train_a_little(method, context, watch)
    training = time.monotonic() - training_began if loop is not None else 0.0
    steps, later = _the_rest(loop, context, watch)
    modules.eval()
    final_scores(method, modules, context)
    model = RunFolder(folder, spec.run_id).model_file
    unknown = with_inputs(Spent(spec.run_id, spec.method), context)
    save_model(model, method, modules, context, TrainingTimes(0.0, 0.0), unknown, Provenance())
    checkpoint = _bytes(ModelState.of(modules, method).to_state())
    if loop is not None:
        checkpoint = 2 * checkpoint + _bytes(optimizer_states(loop.optimizations))
    per_step = watch.seconds_per_step()
    # All but training, and what of training is no step: building, planning, first steps' extra time.
    once = time.monotonic() - began - training - later[0]
    overhead = max(training - per_step * len(watch.times), 0.0) if loop is not None else 0.0
    return RunCost(
        device=context.device.type,
        steps=steps,
        seconds_per_step=per_step / spec.compute.processes,
        other_seconds=once + overhead + later[1],
        kept_bytes=model.stat().st_size,
        checkpoint_bytes=checkpoint,
        training_macs=calibrating if loop is None else loop.spending.projected(steps, _epochs(loop, context)),
    )


def _train_a_little(
    method: Method[Any], context: Context, watch: _Stopwatch
) -> tuple[TrainingLoop | None, nn.ModuleDict, float]:
    """Train until the stopwatch has seen enough; methods without a training loop train to their end, and the last value is
    what that executes."""
    if not isinstance(method, TrainableMethod):
        trained = train(method, context, monitor=watch)
        return None, trained.modules, float(trained.spending.macs or 0)
    loop = TrainingLoop(method, context, monitor=watch)
    try:
        return loop, loop.run(), 0.0
    except Interrupted:
        return loop, loop.modules, 0.0


def _the_rest(loop: TrainingLoop | None, context: Context, watch: _Stopwatch) -> tuple[int, tuple[float, float]]:
    """All steps of a run; the seconds spent here, and those that planning epochs and validating will take."""
    if loop is None or watch.first is None:
        return 0, (0.0, 0.0)
    began = time.monotonic()
    method = loop.method
    stages = method.stages(context)
    trained = next(stage for stage in stages if stage.epochs)
    planning_began = time.monotonic()
    method.start_epoch(loop.modules, trained, 0, context)
    method.enter_epoch(loop.modules, trained, 0, context)
    list(method.plan_epoch(loop.modules, trained, 0, context))
    planning = time.monotonic() - planning_began
    loop.modules.eval()
    validating_began = time.monotonic()
    with torch.no_grad():
        method.validate(loop.modules, trained, context)
    validating = time.monotonic() - validating_began
    every = method.config.evaluate_every
    epochs = _epochs(loop, context)
    validations = sum(_validations(stage.epochs, every) for stage in stages)
    steps = epochs * watch.first.steps_per_epoch
    return steps, (time.monotonic() - began, epochs * planning + validations * validating)


def _epochs(loop: TrainingLoop, context: Context) -> int:
    return sum(stage.epochs for stage in loop.method.stages(context))


def _validations(epochs: int, every: int | None) -> int:
    if not epochs:
        return 0
    return -(-epochs // every) if every else 1


def _bytes(state: object) -> int:
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(_bytes(item) for item in state.values())
    if isinstance(state, list | tuple):
        return sum(_bytes(item) for item in state)
    return 0

"""The training loop: stages of epochs of steps, validated, checkpointed, resumed bit for bit.

All randomness is a function of the seed and of counters (see `subnetbench.harness.core.rng`), so a checkpoint
holds weights, optimizer states and counters, and no generator.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from subnetbench.harness.core.errors import RunFailure
from subnetbench.harness.core.rng import seed_global_torch
from subnetbench.harness.core.tasks import PRIMARY_METRIC
from subnetbench.harness.method.base import TrainableMethod
from subnetbench.harness.method.context import Context
from subnetbench.harness.method.stages import Optimization, Progress, Stage
from subnetbench.harness.method.step import Batch, LogSums, Step
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.training.checkpoints import Checkpoints
from subnetbench.harness.training.monitor import Interrupted, Monitor, Pruned
from subnetbench.harness.training.prefetch import batches_ahead
from subnetbench.harness.training.selection import Selection
from subnetbench.harness.training.spending import SpendingCounter
from subnetbench.harness.training.starting import start_from_file
from subnetbench.harness.training.state import Checkpoint, ModelState, optimizer_states, restore_optimizers

POLL_SECONDS = 0.5
NORM_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class TrainingLoop:
    """Trains one method in one context. `run` returns the trained modules."""

    def __init__(
        self,
        method: TrainableMethod[Any],
        context: Context,
        *,
        monitor: Monitor | None = None,
        folder: RunFolder | None = None,
    ) -> None:
        self.method = method
        self.context = context
        self.world = context.world
        self.monitor = monitor or Monitor(self.world, folder)
        self.checkpoints = Checkpoints(folder)
        self.metric = PRIMARY_METRIC[context.spec.task]
        self.modules: nn.ModuleDict
        self.optimizations: dict[str, Optimization] = {}
        self.stage_index = self.epoch = self.step_in_epoch = 0
        self.epochs_before_stage = 0
        self.selection = Selection()
        self.best: ModelState | None = None
        self.train_seconds = 0.0
        self.spending = SpendingCounter(self.world)
        self._logs = LogSums(context.device)
        self._steps_per_epoch = 0
        self._stopping = False
        self._poll_in = 1

    def run(self) -> nn.ModuleDict:
        """Train, or resume from the last checkpoint.

        Raises `Interrupted` after a stop request, `Pruned` when the tuner says so, `RunFailure` when a loss is
        not finite.
        """
        context, method = self.context, self.method
        seed_global_torch(context.seed, "init")
        self.modules = method.build(context).to(context.device)
        stages = method.stages(context)
        resumed = self._resume(stages)
        if not resumed:
            start_from_file(method, self.modules, context)
        for index in range(self.stage_index, len(stages)):
            self.stage_index = index
            self.epochs_before_stage = sum(stage.epochs for stage in stages[:index])
            if not resumed:
                self._start_stage(stages[index])
            resumed = False
            self._run_stage(stages[index])
        with self.spending.work():
            method.finish(self.modules, context)
        self.monitor.write(train_seconds=round(self.train_seconds, 3))
        return self.modules

    def _start_stage(self, stage: Stage) -> None:
        self.epoch = self.step_in_epoch = 0
        self.selection = Selection(patience=self.method.config.patience)
        self.best = None
        self._logs = LogSums(self.context.device)
        with self.spending.work():
            self.method.start_stage(self.modules, stage, self.context)
        self.optimizations = self._enter_stage(stage)

    def _enter_stage(self, stage: Stage, *, again: bool = False) -> dict[str, Optimization]:
        """What fresh and resumed starts of a stage have in common; returns its optimizers."""
        started = time.monotonic()
        with self.spending.work(again=again):
            self.method.enter_stage(self.modules, stage, self.context)
        self.train_seconds += time.monotonic() - started
        optimizations = self.method.optimizers(self.modules, stage, self.context)
        for optimization in optimizations.values():
            for group in optimization.optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        return optimizations

    def _run_stage(self, stage: Stage) -> None:
        while self.epoch < stage.epochs and not self.selection.should_stop:
            self._run_epoch(stage)
            self._after_epoch(stage)
        if self.best is not None:
            self.best.restore(self.modules, self.method, self.context.device)

    def _run_epoch(self, stage: Stage) -> None:
        method, context = self.method, self.context
        started = time.monotonic()
        with self.spending.work(again=self.step_in_epoch > 0):
            if self.step_in_epoch == 0:
                method.start_epoch(self.modules, stage, self.epoch, context)
            method.enter_epoch(self.modules, stage, self.epoch, context)
            plan = list(method.plan_epoch(self.modules, stage, self.epoch, context))[: method.config.limit_steps]
        if not plan:
            raise RunFailure("an epoch has no batches: the training split is smaller than one batch needs")
        shares = [self._share(indices) for indices in plan]
        self.modules.train()
        buffers = _norm_statistics(self.modules)
        todo = shares[self.step_in_epoch :]
        rendered = batches_ahead(
            lambda indices: method.make_batch(indices, stage, self.epoch, context), todo, context.data.train.images
        )
        for batch in rendered:
            progress = self._progress(stage, len(plan))
            self._take_step(batch, plan[self.step_in_epoch], progress, stage, buffers)
            self.step_in_epoch += 1
            self.monitor.heartbeat(stage.name, progress)
            if self._poll(started):
                self.train_seconds += time.monotonic() - started
                started = time.monotonic()
                self._checkpoint()
                if self._stopping:
                    rendered.close()
                    raise Interrupted
        self.train_seconds += time.monotonic() - started
        self._steps_per_epoch = len(plan)

    def _take_step(
        self, batch: Batch, planned: np.ndarray, progress: Progress, stage: Stage, buffers: Sequence[Tensor]
    ) -> None:
        # Dropout and the like draw from torch's global generators: seeded by step and rank, never by history.
        seed_global_torch(self.context.seed, "noise", stage.name, progress.step, self.world.rank)
        pieces = self.method.micro_batches(batch, stage, self.epoch, self.context)
        shapes = [tuple(value.shape) for value in (batch.images, batch.labels, *batch.extra.values())]
        kind = f"{stage.name} {shapes} in {len(pieces)}"
        drawn = self.method.step_kind(stage, progress.step, self.context)
        with self.spending.step(f"{kind} {drawn}" if drawn else kind, planned.size):
            self.method.training_step(
                self.modules,
                Step(
                    micro_batches=pieces,
                    global_size=max(len(planned), self.world.size),
                    progress=progress,
                    optimizations=self.optimizations,
                    world=self.world,
                    seed=self.context.seed,
                    stage=stage.name,
                    buffers=buffers,
                    logs=self._logs,
                ),
            )

    def _share(self, indices: np.ndarray) -> np.ndarray:
        """This rank's part of a global batch; a batch smaller than the world is repeated, so none is empty."""
        if self.world.size == 1:
            return indices
        if len(indices) < self.world.size:
            indices = np.resize(indices, self.world.size)
        return np.array_split(indices, self.world.size)[self.world.rank]

    def _progress(self, stage: Stage, steps_per_epoch: int) -> Progress:
        return Progress(
            step=self.epoch * steps_per_epoch + self.step_in_epoch,
            total_steps=stage.epochs * steps_per_epoch,
            epoch=self.epoch,
            epochs=stage.epochs,
            steps_per_epoch=steps_per_epoch,
        )

    def _after_epoch(self, stage: Stage) -> None:
        values = {f"train/{name}": value for name, value in self._logs.means(self.world).items()}
        if not math.isfinite(values.get("train/loss", 0.0)):
            raise RunFailure(
                f"the training loss is {values['train/loss']} in epoch {self.epoch + 1} of stage {stage.name}",
                reason="nan",
            )
        self.spending.sample_energy()
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self._logs = LogSums(self.context.device)
        done = self.epochs_before_stage + self.epoch
        every = self.method.config.evaluate_every
        if self.epoch == stage.epochs or (every and self.epoch % every == 0):
            values |= self._validate(stage, done)
        self.monitor.log(values, done)
        self.monitor.heartbeat(
            stage.name, self._progress(stage, self._steps_per_epoch), force=self.epoch == stage.epochs
        )
        if self._poll(time.monotonic()):
            self._checkpoint()
            if self._stopping:
                raise Interrupted

    def _validate(self, stage: Stage, epochs_done: int) -> dict[str, float]:
        self.modules.eval()
        with torch.no_grad():
            metrics = self.method.validate(self.modules, stage, self.context)
        value = metrics.get(self.metric)
        if value is not None and self.epoch >= stage.counts_from:
            if self.selection.update(value) and stage.select:
                # The weights of the last epoch are at hand anyway.
                last = self.epoch == stage.epochs
                self.best = None if last else ModelState.of(self.modules, self.method).copied()
            if self.world.broadcast_object(self.monitor.should_prune(epochs_done, value)):
                raise Pruned(self.spending.total(), self.train_seconds)
        return {f"validation/{name}": number for name, number in metrics.items()}

    def _poll(self, started: float) -> bool:
        """Whether to write a checkpoint now; all ranks agree. Sets `_stopping` when the run is to end."""
        self._poll_in -= 1
        if self.world.size == 1:
            self._stopping = self.monitor.stop_requested()
            return self._stopping or self.checkpoints.due()
        if self._poll_in > 0:
            return False
        per_step = max((time.monotonic() - started) / max(self.step_in_epoch, 1), 1e-4)
        answer = (
            self.monitor.stop_requested(),
            self.checkpoints.due(),
            min(max(int(POLL_SECONDS / per_step), 1), 100),
        )
        answers = self.world.gather_objects(answer)
        self._stopping = any(stop for stop, _, _ in answers)
        self._poll_in = answers[0][2]
        return self._stopping or answers[0][1]

    def _checkpoint(self) -> None:
        logs, spending = self._logs.state(self.world), self.spending.state()
        if not self.world.is_main:
            return
        self.checkpoints.save(
            Checkpoint(
                stage=self.stage_index,
                epoch=self.epoch,
                step=self.step_in_epoch,
                steps_per_epoch=self._steps_per_epoch,
                selection=self.selection.state,
                train_seconds=self.train_seconds,
                spending=spending,
                logs=logs,
                optimizers=optimizer_states(self.optimizations),
                best=self.best,
                model=ModelState.of(self.modules, self.method),
            )
        )

    def _resume(self, stages: list[Stage]) -> bool:
        saved = self.checkpoints.load()
        if saved is None:
            return False
        self.stage_index, self.epoch, self.step_in_epoch = saved.stage, saved.epoch, saved.step
        self._steps_per_epoch = saved.steps_per_epoch
        saved.model.restore(self.modules, self.method, self.context.device)
        self.train_seconds = saved.train_seconds
        self.spending.load(saved.spending)
        self.optimizations = self._enter_stage(stages[self.stage_index], again=True)
        restore_optimizers(self.optimizations, saved.optimizers)
        self.selection = Selection(patience=self.method.config.patience)
        self.selection.state = saved.selection
        self.best = saved.best
        self._logs = LogSums(self.context.device)
        self._logs.load(saved.logs, self.world)
        return True


def _norm_statistics(modules: nn.Module) -> list[Tensor]:
    """The running statistics, with their counters, of the layers in training mode: the others do not move theirs."""
    layers = [module for module in modules.modules() if module.training]
    return [
        buffer for layer in layers for name, buffer in layer.named_buffers(recurse=False) if name in NORM_STATISTICS
    ]

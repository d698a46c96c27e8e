"""Stages of training, and how each is optimized."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from subnetbench.harness.core.errors import UserError


@dataclass(frozen=True)
class Progress:
    """Where a stage stands when a step is taken; schedules are functions of it, so nothing of them is saved."""

    step: int
    total_steps: int
    epoch: int
    epochs: int
    steps_per_epoch: int


class Schedule(Protocol):
    """Sets the hyper-parameters of an optimizer before each step.

    Each parameter group keeps the value it was created with under `initial_lr`.
    """

    def apply(self, optimizer: torch.optim.Optimizer, progress: Progress) -> None: ...


@dataclass
class Optimization:
    """One optimizer with its schedule and its gradient clipping.

    `clip_norm` bounds the total norm of the gradients of this optimizer's parameters.
    """

    optimizer: torch.optim.Optimizer
    schedule: Schedule | None = None
    clip_norm: float | None = None

    def parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


@dataclass(frozen=True)
class Stage:
    """A part of training with its own epochs, optimizers and selection; each is resumable.

    `select` keeps the weights of the best validation instead of the last ones. `epochs=0` is a stage without
    training: only its `start_stage` hook runs (pruning, calibration).

    `counts_from` is the first epoch (from 1) at whose end the weights are what the method offers, as where a schedule
    has reached its sparsity. Earlier validations are logged, and decide nothing: they select no weights, do not count
    for `patience`, and end no trial of a search.

    Raises:
        UserError: When `counts_from` lies outside the epochs of the stage.
    """

    name: str
    epochs: int
    select: bool = True
    counts_from: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.counts_from <= max(self.epochs, 1):
            raise UserError(
                f"no epoch of stage {self.name}",
                field="counts_from",
                value=self.counts_from,
                allowed=f"1 to {max(self.epochs, 1)}",
            )

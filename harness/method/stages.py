"""Stages of training, and how each is optimized."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn


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
    """

    name: str
    epochs: int
    select: bool = True

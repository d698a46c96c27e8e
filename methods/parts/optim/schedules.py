"""Learning-rate schedules as functions of progress.

A schedule keeps no state: what it sets depends on the step alone, so a resumed run needs nothing of it. Everything
is stated in epochs or as a share of the stage, never in steps, so that runs on 1 and on n processes see the same
curve. Each parameter group follows the curve from its own `initial_lr` (its peak).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Literal

import torch

from subnetbench.harness.method import Progress, UserError, unknown


@dataclass(frozen=True)
class LearningRateSchedule(ABC):
    """A multiplier on every group's `initial_lr`, and for some schedules a momentum, before each step.

    `common_lr` replaces the peak of all groups by one number, which loses any multiplier between them.
    """

    _: KW_ONLY
    common_lr: float | None = None

    @abstractmethod
    def factor(self, progress: Progress) -> float:
        """What the peak learning rate is multiplied with at this step."""

    def momentum(self, progress: Progress) -> float | None:
        """SGD's momentum, or Adam's first beta, at this step; None leaves the optimizer's own."""
        return None

    def apply(self, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Set the learning rate (and momentum) of all groups for the step that `progress` is about to take."""
        factor, momentum = self.factor(progress), self.momentum(progress)
        for group in optimizer.param_groups:
            peak = group.setdefault("initial_lr", group["lr"])
            group["lr"] = factor * (peak if self.common_lr is None else self.common_lr)
            if momentum is not None and "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            elif momentum is not None:
                group["momentum"] = momentum


@dataclass(frozen=True)
class Constant(LearningRateSchedule):
    """The peak, always."""

    def factor(self, progress: Progress) -> float:
        return 1.0


@dataclass(frozen=True)
class MultiStep(LearningRateSchedule):
    """From epoch `milestones[i]` on (counted from 0), multiply with `gamma`, or with `gamma[i]`."""

    milestones: tuple[int, ...] = ()
    gamma: float | tuple[float, ...] = 0.1

    def __post_init__(self) -> None:
        if isinstance(self.gamma, tuple) and len(self.gamma) != len(self.milestones):
            raise UserError(
                "give one factor, or as many as there are milestones",
                field="gamma",
                value=self.gamma,
                allowed=f"{len(self.milestones)} numbers",
            )

    def factor(self, progress: Progress) -> float:
        gammas = self.gamma if isinstance(self.gamma, tuple) else (self.gamma,) * len(self.milestones)
        passed = (g for milestone, g in zip(self.milestones, gammas, strict=True) if progress.epoch >= milestone)
        return math.prod(passed)


@dataclass(frozen=True)
class Exponential(LearningRateSchedule):
    """Multiply with `gamma` after every epoch."""

    gamma: float = 0.99

    def factor(self, progress: Progress) -> float:
        return self.gamma**progress.epoch


@dataclass(frozen=True)
class Cosine(LearningRateSchedule):
    """A linear rise over `warmup_epochs`, then half a cosine down to `final` times the peak (SGDR, Loshchilov and
    Hutter 2017, without restarts).

    The first step is one step into the rise, not at 0. With `per_epoch` the rate changes between epochs only.
    """

    warmup_epochs: float = 0.0
    final: float = 0.0
    per_epoch: bool = False

    def factor(self, progress: Progress) -> float:
        if self.per_epoch:
            done, total, warmup = progress.epoch, progress.epochs, self.warmup_epochs
        else:
            done, total = progress.step, progress.total_steps
            warmup = self.warmup_epochs * total / max(progress.epochs, 1)
        if done < warmup:
            return min(1.0, (done + 1) / warmup)
        share = min(1.0, (done - warmup) / max(total - warmup, 1e-12))
        return _cosine(1.0, self.final, share)


@dataclass(frozen=True)
class OneCycle(LearningRateSchedule):
    """Cosine up from 1/`start_divisor` of the peak and down again, with momentum the other way round (super-
    convergence, Smith and Topin 2018; the numbers are those of PyTorch's OneCycleLR but for the start).

    `momentum_range` is (lowest, highest), or None to leave the momentum alone. `total_steps` replaces the true
    number of steps of the stage.
    """

    warmup_share: float = 0.3
    start_divisor: float = 10.0
    end_divisor: float = 1e5
    momentum_range: tuple[float, float] | None = (0.85, 0.95)
    total_steps: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.warmup_share < 1:
            raise UserError("not a share", field="warmup_share", value=self.warmup_share, allowed="> 0, < 1")

    def factor(self, progress: Progress) -> float:
        return self._curve(progress, 1 / self.start_divisor, 1.0, 1 / self.end_divisor)

    def momentum(self, progress: Progress) -> float | None:
        if self.momentum_range is None:
            return None
        lowest, highest = self.momentum_range
        return self._curve(progress, highest, lowest, highest)

    def _curve(self, progress: Progress, start: float, middle: float, end: float) -> float:
        total = progress.total_steps if self.total_steps is None else self.total_steps
        peak, last = self.warmup_share * total - 1, total - 1
        if progress.step < peak:
            return _cosine(start, middle, progress.step / peak)
        return _cosine(middle, end, (progress.step - peak) / (last - peak))


@dataclass(frozen=True)
class Cyclic(LearningRateSchedule):
    """Triangles between `base` times the peak and the peak, each half as high as the one before (`triangular2`,
    Smith 2017).

    `total_steps` replaces the true number of steps of the stage.
    """

    cycles: int = 3
    base: float = 0.1
    total_steps: int | None = None

    def factor(self, progress: Progress) -> float:
        total = progress.total_steps if self.total_steps is None else self.total_steps
        cycle, position = divmod(progress.step * self.cycles / total, 1.0)
        result: float = self.base + (1 - self.base) * (1 - abs(2 * position - 1)) * 0.5**cycle
        return result


SCHEDULES: dict[str, type[LearningRateSchedule]] = {
    "constant": Constant,
    "multistep": MultiStep,
    "exponential": Exponential,
    "cosine": Cosine,
    "onecycle": OneCycle,
    "cyclic": Cyclic,
}


def make_schedule(name: str, **options: Any) -> LearningRateSchedule:
    """The schedule called `name`.

    Raises:
        UserError: For an unknown name or option.
    """
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    allowed = [field.name for field in fields(SCHEDULES[name])]
    for option in options:
        if option not in allowed:
            raise UserError("no such option", field=f"{name}.{option}", allowed=", ".join(allowed))
    return SCHEDULES[name](**options)


def raml_schedule(
    name: Literal["onecycle", "cyclic", "exponential", "none"],
    *,
    images_per_epoch: int,
    batch_size: int,
    accumulate: int,
    epochs: int,
    lr: float,
) -> LearningRateSchedule:
    """The schedules of the published RAML code, faults included.

    `onecycle` and `cyclic` give every group the one rate `lr`, and are given a number of steps that differs from
    the number taken (left-over batches are dropped, but counted).

    Raises:
        UserError: For runs that are too short for `cyclic`.
    """
    steps = images_per_epoch / batch_size / accumulate
    if name == "onecycle":
        return OneCycle(total_steps=math.ceil(steps) * epochs, common_lr=lr)
    if name == "cyclic":
        half_cycle = int(epochs * images_per_epoch / batch_size / accumulate / 6)
        if half_cycle == 0:
            raise UserError("the run is too short for three cycles", field="epochs", value=epochs)
        return Cyclic(total_steps=6 * half_cycle, common_lr=lr)
    if name == "exponential":
        return Exponential(gamma=math.exp(-0.001))
    return Constant()


def _cosine(start: float, end: float, share: float) -> float:
    """From `start` (share 0) to `end` (share 1) along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

"""One training step as a method sees it: gradients that are already averaged, and optimizers to apply."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from subnetbench.harness.core.batches import batch_slices
from subnetbench.harness.core.rng import Purpose, torch_generator
from subnetbench.harness.distributed.world import World
from subnetbench.harness.method.stages import Optimization, Progress

Losses = Mapping[str, Tensor]
LossFunction = Callable[["Batch"], Losses]


@dataclass
class Batch:
    """This rank's share of a step's samples, or one micro-batch of it.

    `images` are normalised float32 (n, channels, size, size), or (n, views, ...) when a method makes views;
    `extra` holds whatever else a method's `make_batch` adds, each with n rows.
    """

    indices: np.ndarray
    images: Tensor
    labels: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.indices)

    def pieces(self, size: int | None) -> list["Batch"]:
        """Micro-batches of at most `size` samples, in order."""
        if size is None or size >= len(self):
            return [self]
        cuts = batch_slices(len(self), size)
        return [
            Batch(
                indices=self.indices[cut],
                images=self.images[cut],
                labels=self.labels[cut],
                extra={name: value[cut] for name, value in self.extra.items()},
            )
            for cut in cuts
        ]


class Step:
    """What `training_step` gets.

    A loss function maps a batch to named scalars; `loss` is the one that is differentiated. With
    `reduction="mean"` (the default) it is the mean over the batch's samples, and micro-batches and ranks are
    weighted by their numbers of samples, so the result is that of the whole global batch at once. With `"sum"`
    they are added up. With `"gathered"` every rank computes the loss of all ranks' samples (see
    `gather_with_gradient`), and ranks are averaged.

    Running statistics see micro-batches and ranks alike: each starts from the statistics at hand, and what they
    arrive at is averaged by numbers of samples, so that a pass moves them once. `buffers` are these statistics and
    their counters. A loss that leaves them alone says so by `keeps_statistics`, which saves the averaging.
    """

    def __init__(
        self,
        *,
        micro_batches: Sequence[Batch],
        global_size: int,
        progress: Progress,
        optimizations: Mapping[str, Optimization],
        world: World,
        seed: int,
        stage: str,
        buffers: Sequence[Tensor],
        logs: "LogSums",
    ) -> None:
        self.micro_batches = micro_batches
        self.progress = progress
        self.world = world
        self._global_size = global_size
        self._optimizations = optimizations
        self._seed, self._stage = seed, stage
        self._buffers = buffers
        self._logs = logs
        self._passes = 0
        self._kept: list[dict[str, Tensor]] = [{} for _ in range(len(micro_batches))]
        self._position: int | None = None

    @property
    def device(self) -> torch.device:
        return self.world.device

    def generator(
        self, purpose: Purpose, *counters: int | str, device: torch.device | str | None = None
    ) -> torch.Generator:
        """A generator for this step, the same on all ranks; `counters` tell several draws of a step apart."""
        key = (self._stage, self.progress.step, *counters)
        return torch_generator(self._seed, purpose, *key, device=device or self.device)

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of all ranks with gradient, for losses across samples; use `reduction="gathered"` with it."""
        return self.world.gather_with_gradient(rows)

    def keep(self, name: str, value: Tensor) -> None:
        """Called in a loss: keep what this pass found for the micro-batch at hand, for a later pass of the same step."""
        self._of_micro_batch()[name] = value

    def kept(self, name: str) -> Tensor:
        """Called in a loss: what an earlier pass kept for the micro-batch at hand.

        Raises:
            KeyError: When no pass of this step kept it.
        """
        found = self._of_micro_batch()
        if name not in found:
            raise KeyError(f"no earlier pass of this step kept {name!r}; kept: {', '.join(found) or 'nothing'}")
        return found[name]

    def gradients(
        self, loss: LossFunction, inputs: Sequence[Tensor], *, reduction: str = "mean", keeps_statistics: bool = False
    ) -> list[Tensor | None]:
        """The gradient of the global loss with respect to `inputs`; None where an input is not used."""
        total: list[Tensor | None] = [None] * len(inputs)
        moving = self._moving_statistics(keeps_statistics)
        for value in self._weighted(loss, reduction, moving):
            for i, gradient in enumerate(torch.autograd.grad(value, inputs, allow_unused=True)):
                if gradient is not None:
                    before = total[i]
                    total[i] = gradient if before is None else before + gradient
        self._add_up([gradient for gradient in total if gradient is not None], moving)
        return total

    def backward(
        self,
        loss: LossFunction,
        inputs: Sequence[nn.Parameter] | None = None,
        *,
        reduction: str = "mean",
        keeps_statistics: bool = False,
    ) -> None:
        """Set `.grad` of `inputs` (default: of all optimized parameters) to the gradient of the global loss.

        Parameters outside `inputs` keep the gradient they have.
        """
        chosen = self.parameters() if inputs is None else list(inputs)
        for parameter in chosen:
            parameter.grad = None
        moving = self._moving_statistics(keeps_statistics)
        for value in self._weighted(loss, reduction, moving):
            torch.autograd.backward(value, inputs=chosen)
        self._add_up([parameter.grad for parameter in chosen if parameter.grad is not None], moving)

    def update(self, *names: str) -> None:
        """Clip, set the schedule's values and take a step of the named optimizers (default: of all)."""
        for name in names or self._optimizations:
            optimization = self._optimizations[name]
            if optimization.schedule is not None:
                optimization.schedule.apply(optimization.optimizer, self.progress)
            if optimization.clip_norm is not None:
                parameters = [p for p in optimization.parameters() if p.grad is not None]
                nn.utils.clip_grad_norm_(parameters, optimization.clip_norm)
            optimization.optimizer.step()

    def parameters(self, *names: str) -> list[nn.Parameter]:
        """The parameters of the named optimizers (default: of all)."""
        return [p for name in names or self._optimizations for p in self._optimizations[name].parameters()]

    def optimizer(self, name: str) -> torch.optim.Optimizer:
        """A named optimizer, for steps that change a weight by hand and what is remembered of it (its momentum)."""
        return self._optimizations[name].optimizer

    def log(self, **values: Tensor | float) -> None:
        """Add scalars to the epoch's means; tensors stay on the device until the epoch ends."""
        self._logs.add(values, 1.0)

    def _of_micro_batch(self) -> dict[str, Tensor]:
        if self._position is None:
            raise RuntimeError("only a loss, while it is computed, has a micro-batch to keep something for")
        return self._kept[self._position]

    def _weighted(self, loss: LossFunction, reduction: str, moving: "_MovingStatistics") -> Iterator[Tensor]:
        first = self._passes == 0
        self._passes += 1
        for position, batch in enumerate(self.micro_batches):
            moving.start()
            self._position = position
            with self.world.autocast():
                parts = loss(batch)
            self._position = None
            moving.take(len(batch) / self._global_size)
            weight = {
                "mean": len(batch) / self._global_size,
                "sum": 1.0,
                "gathered": 1.0 / (self.world.size * len(self.micro_batches)),
            }[reduction]
            if first:
                self._logs.add(parts, weight)
            value = parts["loss"]
            yield value if weight == 1.0 else value * weight

    def _moving_statistics(self, kept: bool) -> "_MovingStatistics":
        alone = self.world.size == len(self.micro_batches) == 1
        return _MovingStatistics(() if kept or alone else self._buffers)

    def _add_up(self, gradients: Sequence[Tensor], moving: "_MovingStatistics") -> None:
        moving.finish()
        self.world.sum_([*gradients, *moving.statistics])


class _MovingStatistics:
    """The running statistics of one pass over this rank's micro-batches; `finish` leaves its part of the mean."""

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        self._buffers = list(buffers)
        self._before: list[Tensor] = []
        # Counters go back too, and so count the pass and not its micro-batches.
        self.statistics = [buffer for buffer in self._buffers if buffer.is_floating_point()]
        self._means = [torch.zeros_like(value) for value in self.statistics]

    def start(self) -> None:
        """To be called before each micro-batch."""
        if not self._before:
            self._before = [buffer.clone() for buffer in self._buffers]
            return
        for buffer, before in zip(self._buffers, self._before, strict=True):
            buffer.copy_(before)

    def take(self, share: float) -> None:
        """Count what a micro-batch with this share of the step's samples arrived at."""
        for mean, value in zip(self._means, self.statistics, strict=True):
            mean.add_(value, alpha=share)

    def finish(self) -> None:
        for value, mean in zip(self.statistics, self._means, strict=True):
            value.copy_(mean)


class LogSums:
    """Sums of logged scalars over an epoch, on the device, so that a step never waits for a value."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}

    def add(self, values: Mapping[str, Tensor | float], weight: float) -> None:
        for name, value in values.items():
            value = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value), device=self._device)
            term = value.to(torch.float64) * weight
            self._sums[name] = self._sums[name] + term if name in self._sums else term
            self._weights[name] = self._weights.get(name, 0.0) + weight

    def means(self, world: World) -> dict[str, float]:
        """The weighted means over the epoch and all ranks; waits for the device once."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        sums = torch.stack([self._sums[name] for name in names])
        weights = torch.tensor([self._weights[name] for name in names], dtype=torch.float64, device=self._device)
        world.sum_([sums, weights])
        return dict(zip(names, (sums / weights).tolist(), strict=True))

    def state(self, world: World) -> dict[str, list[float]]:
        """Sum and weight of each name over all ranks, to resume after an interruption."""
        names = sorted(self._sums)
        values = [[self._sums[name].item() for name in names], [self._weights[name] for name in names]]
        table = torch.tensor(values, dtype=torch.float64, device=self._device)
        world.sum_([table])
        return {name: table[:, i].tolist() for i, name in enumerate(names)}

    def load(self, state: dict[str, list[float]], world: World) -> None:
        """Resume from `state`; rank 0 carries what all ranks had summed."""
        share = 1.0 if world.is_main else 0.0
        for name, (total, weight) in state.items():
            self._sums[name] = torch.tensor(total * share, dtype=torch.float64, device=self._device)
            self._weights[name] = weight * share

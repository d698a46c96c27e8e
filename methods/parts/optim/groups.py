"""Parameter groups and warm-up of the PrunNet recipe."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from subnetbench.harness.method import Progress
from subnetbench.methods.parts.optim.schedules import Constant, LearningRateSchedule

ParameterGroup = dict[str, Any]
"""`params` with their `lr` and `weight_decay`; open, because each of torch's optimizers adds options of its own."""


@dataclass(frozen=True)
class WarmUpFromZero(LearningRateSchedule):
    """A linear rise from 0 over the steps of `epochs`, then `after` as if it had run from the start.

    The very first step has rate 0, as in the PrunNet code. Give `after` its own `warmup_epochs` if the cosine is to
    start where the rise ends.
    """

    epochs: float = 3.0
    after: LearningRateSchedule = field(default_factory=Constant)

    def factor(self, progress: Progress) -> float:
        rise = self.epochs * progress.steps_per_epoch
        return progress.step / rise if progress.step < rise else self.after.factor(progress)


def decay_groups(
    parameters: Iterable[Tensor], weight_decay: float, undecayed: Iterable[Tensor] = ()
) -> list[ParameterGroup]:
    """Optimizer groups of the parameters with weight decay and of those without, each in the given order."""
    exempt = {id(parameter) for parameter in undecayed}
    groups: tuple[list[Tensor], list[Tensor]] = ([], [])
    for parameter in parameters:
        groups[id(parameter) in exempt].append(parameter)
    decays = (weight_decay, 0.0)
    return [{"params": group, "weight_decay": decay} for group, decay in zip(groups, decays, strict=True) if group]

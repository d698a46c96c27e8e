"""Gradual magnitude pruning: sparsity rises while the network trains (Zhu and Gupta, 2017)."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from torch import nn

from subnetbench.harness.method import (
    Context,
    Optimization,
    Stage,
    Step,
    Uniform,
    Variant,
    operating_point,
    register_method,
)
from subnetbench.methods.parts.bases.classifier import ClassifierConfig
from subnetbench.methods.parts.masks.magnitude import magnitude_masks
from subnetbench.methods.parts.masks.masked_model import mask_network, masked_network
from subnetbench.methods.parts.masks.masks import FixedMask
from subnetbench.methods.parts.masks.training import MaskedClassifierMethod


@dataclass(frozen=True)
class CubicSchedule:
    """Sparsity by step (equation 1 of the paper), from `initial` at step `begin` to `final` at step `end`.

    s(t) = final + (initial - final) (1 - (t - begin) / (end - begin))^3 at `prunings` + 1 steps from `begin` to `end`,
    as evenly spread as whole steps allow (fewer, where there are fewer steps).
    """

    initial: float
    final: float
    begin: int
    end: int
    prunings: int

    def due(self, step: int) -> float | None:
        """The sparsity to prune to before this step; None: nothing is to be removed."""
        length = self.end - self.begin
        passed = step - self.begin
        if not 0 <= passed <= length:
            return None
        if length == 0:
            return self.final
        # Pruning i comes ceil(i length / prunings) steps after `begin`: is this the step of the last that may be over?
        latest = passed * self.prunings // length
        if -(-latest * length // self.prunings) != passed:
            return None
        return self.final + (self.initial - self.final) * (1 - passed / length) ** 3


@register_method("gradual_magnitude")
class GradualMagnitude(MaskedClassifierMethod["GradualMagnitude.Config"]):
    """Removes the smallest |weight| step by step during training, fast at first, and trains on at the final sparsity.

    What has been removed stays removed. Only epochs that end at the final sparsity can be selected.
    """

    paper = "Zhu, Gupta, To prune, or not to prune, arXiv 1710.01878"
    tiny = {"network": "conv2", "image_size": 8, "pruning_ends": 0.5}

    class Config(ClassifierConfig):
        sparsity: Annotated[
            float,
            Field(ge=0, lt=1, description="fraction removed of all convolution and linear weights"),
            operating_point,
        ] = 0.5
        scope: Annotated[
            Literal["global", "layer", "erk"],
            Field(description="compare weights over the whole network, or layer by layer; erk: budgets by layer size"),
        ] = "layer"
        initial_sparsity: Annotated[float, Field(ge=0, lt=1, description="fraction removed by the first pruning")] = 0.0
        pruning_begins: Annotated[
            float, Field(ge=0, lt=1, description="share of training before the first pruning"), Uniform(0.0, 0.3)
        ] = 0.0
        pruning_ends: Annotated[
            float, Field(gt=0, le=1, description="share of training before the last pruning"), Uniform(0.4, 0.9)
        ] = 0.75
        prunings: Annotated[int, Field(ge=1, description="prunings after the first one, evenly spread")] = 50

        @model_validator(mode="after")
        def _rises(self) -> Self:
            if self.pruning_begins > self.pruning_ends:
                raise ValueError(f"pruning_begins {self.pruning_begins} comes after pruning_ends {self.pruning_ends}")
            if self.initial_sparsity > self.sparsity:
                raise ValueError(f"initial_sparsity {self.initial_sparsity} is above sparsity {self.sparsity}")
            if self.epochs == 0:
                raise ValueError("epochs 0 leave no step to prune in; method magnitude prunes without training")
            return self

        def epoch_at(self, share: float) -> int:
            """The epoch, from 0, in which this share of training is over; the last one for all of it."""
            return min(math.floor(share * self.epochs), self.epochs - 1)

        def sparsities(self, steps_per_epoch: int) -> CubicSchedule:
            """The sparsities of a training with so many steps an epoch."""

            def step_at(share: float) -> int:
                epoch = self.epoch_at(share)
                within = math.floor((share * self.epochs - epoch) * steps_per_epoch)
                return epoch * steps_per_epoch + min(within, steps_per_epoch - 1)

            begin, end = step_at(self.pruning_begins), step_at(self.pruning_ends)
            return CubicSchedule(self.initial_sparsity, self.sparsity, begin, end, self.prunings)

    def build(self, context: Context) -> nn.ModuleDict:
        return nn.ModuleDict({"network": mask_network(self.plain_network(context), FixedMask())})

    def stages(self, context: Context) -> list[Stage]:
        return [Stage("train", self.config.epochs, counts_from=self.config.epoch_at(self.config.pruning_ends) + 1)]

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        return {"weights": self.sgd(masked_network(modules).base.parameters())}

    def training_step(self, modules: nn.ModuleDict, step: Step) -> None:
        masked = masked_network(modules)
        sparsity = self.config.sparsities(step.progress.steps_per_epoch).due(step.progress.step)
        if sparsity is not None:
            weights = {name: masked.weight(name) for name in masked.names}
            within = {name: masked.score(name) for name in masked.names}
            masked.set_masks(magnitude_masks(weights, sparsity, self.config.scope, within=within))
        super().training_step(modules, step)

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        masked = masked_network(modules)
        return [Variant("subnetwork", lambda: masked.finalise().eval(), self.preprocessing(context))]

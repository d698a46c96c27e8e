"""ASLP: masks from arbitrarily shifted log-probabilities, by Gumbel-softmax (Dupont et al., ICIP 2022)."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from subnetbench.harness.method import (
    Choice,
    Context,
    LogUniform,
    Optimization,
    Stage,
    Step,
    UserValues,
    Weights,
    register_method,
)
from subnetbench.methods.parts.masks.foreign import has_factors
from subnetbench.methods.parts.masks.masked_model import masked_network
from subnetbench.methods.parts.masks.masks import AslpMask
from subnetbench.methods.parts.masks.search import SampledSearch, SampledSearchConfig
from subnetbench.methods.parts.masks.training import masked_backward


@register_method("aslp")
class Aslp(SampledSearch["Aslp.Config"]):
    """The score of a weight is its log-odds of being kept; hard samples carry a Gumbel-softmax gradient.

    Frozen random weights; sparsity is not controlled (about half). With `weight_rescale` each layer has a learned
    factor, trained in a second pass of every step with fresh masks (`update: alternating`, as published) or in the
    same pass (`joint`, cheaper, another algorithm). The final network keeps scores >= 0 and folds the factors in.
    """

    paper = "Dupont, Alaoui, Sahbi, Lebois, Extracting Effective Subnetworks with Gumbel-Softmax, arXiv 2202.12986"

    class Config(SampledSearchConfig):
        searched_when = {"scale_lr": {"weight_rescale": (True,)}}

        weight_rescale: Annotated[bool, Field(description="learn one factor a layer")] = False
        update: Annotated[
            Literal["alternating", "joint"],
            Field(description="how scores and factors take turns"),
            Choice(("alternating", "joint")),
        ] = "alternating"
        scale_lr: Annotated[float, Field(gt=0, description="learning rate of the factors"), LogUniform(1e-4, 1e-2)] = (
            1e-3
        )
        tau: Annotated[float, Field(gt=0, description="temperature of the gradient"), LogUniform(0.1, 10.0)] = 1.0
        hard: Annotated[bool, Field(description="hard samples forward; false: the soft samples themselves")] = True

    @classmethod
    def describe_weights(cls, weights: Weights) -> UserValues:
        return {**super().describe_weights(weights), **({"weight_rescale": True} if has_factors(weights) else {})}

    def mask(self) -> AslpMask:
        config = self.config
        return AslpMask(
            learn_scale=config.weight_rescale, tau=config.tau, hard=config.hard, initial_value=config.initial_value
        )

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        masked = masked_network(modules)
        optimizers = {"scores": self.sgd(masked.score_parameters())}
        if self.config.weight_rescale:
            scales = list(masked.mask.parameters())
            optimizers["scales"] = Optimization(torch.optim.SGD(scales, self.config.scale_lr, self.config.momentum))
        return optimizers

    def training_step(self, modules: nn.ModuleDict, step: Step) -> None:
        passes = [("scores", "scales")] if self.config.update == "joint" else [("scores",), ("scales",)]
        if not self.config.weight_rescale:
            passes = [("scores",)]
        for number, names in enumerate(passes):
            masked = masked_network(modules)
            masked.draw(step.generator("masks", number))
            masked_backward(masked, step, lambda batch: self.loss(modules, batch, step), step.parameters(*names))
            step.update(*names)
